//! The root tests in throw-away machines, one for each cgroup layout, without root on this host.
//!
//! [`debian`] fetches a kernel, QEMU and busybox; [`payload`] builds the tests static; [`initramfs`] packs them, with
//! [`cpio`] and [`modules`]; [`machine`] boots that and watches; [`report`] judges what the guest said of itself, and
//! [`trial`] sees to it first that a machine can also fail. What happens inside is `init.sh`.

mod cpio;
mod debian;
mod initramfs;
mod machine;
mod modules;
mod payload;
mod report;
mod trial;

use std::fmt;
use std::fs::{self, File};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use xshell::Shell;

use self::debian::Debian;
use self::machine::{Machine, Patience};
use self::payload::Payload;
use self::report::{Report, Verdict};
use crate::counts::{Selection, Summary};
use crate::paths;
use crate::progress::Progress;

/// How the machine's controllers are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    V1,
    V2,
    Hybrid,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::V1, Self::V2, Self::Hybrid];

    /// The layouts that `--vm` names.
    pub(crate) fn parse(name: &str) -> Result<Vec<Self>> {
        if name == "all" {
            return Ok(Self::ALL.to_vec());
        }
        match Self::ALL.into_iter().find(|layout| layout.to_string() == name) {
            Some(layout) => Ok(vec![layout]),
            None => bail!("--vm takes v1, v2, hybrid or all, not `{name}`"),
        }
    }

    /// What the kernel is told; the rest is for `init.sh` to mount.
    fn kernel_argument(self) -> &'static str {
        match self {
            Self::V1 | Self::Hybrid => "",
            Self::V2 => "cgroup_no_v1=all",
        }
    }
}

impl fmt::Display for Layout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
        })
    }
}

/// What came of one machine, and how long it ran.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) layout: Layout,
    pub(crate) summary: Summary,
    pub(crate) time: Duration,
}

/// Boots a machine of each layout and runs the selected root tests in it.
pub(crate) fn run(layouts: &[Layout], selection: &Selection) -> Result<Vec<Run>> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux")) {
        bail!(
            "throw-away machines need x86-64 Linux: their kernel and the tests in them are the host's kind"
        );
    }
    let sh = Shell::new()?;
    let vm = paths::target()?.join("vm");
    fs::create_dir_all(&vm)?;
    // One at a time: runs side by side would share the machines' disks and logs, and measure each other.
    let lock = File::create(vm.join("lock"))?;
    lock.lock().with_context(|| format!("lock {}", vm.display()))?;

    let debian = Debian::at(&sh, &vm)?;
    let payload = Payload::build(selection, &vm)?;
    let mut machine = Machine::new(&sh, &debian, &vm)?;
    trial::run(&sh, &debian, &mut machine)?;

    initramfs::write(&sh, &debian, &payload, machine.initramfs())?;
    let mut runs = Vec::new();
    for layout in layouts {
        let mut progress = Progress::begin(format!("machine {layout}"));
        let mut report = Report::new(*layout, &payload);
        let run = machine
            .run(*layout, Patience::new(selection.long), &mut progress, |line| report.line(line))?;
        let Verdict { mut summary, failures } = report.close(&run);
        progress.clear();
        for failure in &failures {
            eprintln!("{failure}");
        }
        if selection.require {
            summary.require();
        }
        let time = progress.end(if summary.good() { "ok" } else { "FAILED" });
        runs.push(Run { layout: *layout, summary, time });
    }
    Ok(runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_are_named() {
        assert_eq!(Layout::parse("all").expect("known"), Layout::ALL);
        assert_eq!(Layout::parse("v2").expect("known"), [Layout::V2]);
        assert!(Layout::parse("v3").is_err());
    }
}

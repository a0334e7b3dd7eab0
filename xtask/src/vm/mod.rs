//! Runs the root tests in virtual machines, for each cgroup layout and kernel, without root on this host.
//!
//! [`debian`] fetches kernels, QEMU and busybox. [`payload`] selects the static test binaries, [`initramfs`] packs an
//! archive, and [`machine`] boots and watches QEMU. [`report`] turns the guest's report into a result. Before that,
//! [`trial`] checks that each failure of a machine is detected. `init.sh` is the first process of the guest.

mod debian;
mod initramfs;
mod machine;
mod payload;
mod report;
mod trial;

use std::fmt;
use std::fs;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use xshell::Shell;

use self::debian::Debian;
pub(crate) use self::debian::Kernel;
use self::machine::{Accelerator, Machine, Patience};
use self::payload::Payload;
use self::report::{Report, Verdict};
use crate::counts::{Counts, Selection, Summary};
use crate::paths;
use crate::progress::Progress;
use crate::test_root::Built;

/// The layout of the control groups in a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    V1,
    V2,
    Hybrid,
}

impl Layout {
    pub(crate) const ALL: [Self; 3] = [Self::V1, Self::V2, Self::Hybrid];

    /// Returns the kernel argument of the layout; `init.sh` mounts the hierarchies.
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

/// The value of `--vm`.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
pub(crate) enum Choice {
    V1,
    V2,
    Hybrid,
    All,
}

impl Choice {
    pub(crate) fn layouts(self) -> Vec<Layout> {
        match self {
            Self::V1 => vec![Layout::V1],
            Self::V2 => vec![Layout::V2],
            Self::Hybrid => vec![Layout::Hybrid],
            Self::All => Layout::ALL.to_vec(),
        }
    }
}

/// The layout and the kernel of a machine.
pub(crate) type Kind = (Layout, Kernel);

/// Returns one machine for each layout, each with another kernel; in the long form, every combination.
pub(crate) fn kinds(layouts: &[Layout], long: bool) -> Vec<Kind> {
    let all = layouts.iter().flat_map(|layout| Kernel::ALL.map(|kernel| (*layout, kernel)));
    all.filter(|(layout, kernel)| {
        long || matches!(
            (layout, kernel),
            (Layout::V1, Kernel::Oldest)
                | (Layout::V2, Kernel::Newest)
                | (Layout::Hybrid, Kernel::Stable)
        )
    })
    .collect()
}

/// The result and the duration of a machine.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) summary: Summary,
    pub(crate) time: Duration,
}

/// Boots a machine of each kind and runs the selected root tests, three machines at a time. A machine that this host
/// cannot run is counted as skipped.
pub(crate) fn run(kinds: &[Kind], selection: &Selection, built: &Built) -> Result<Vec<Run>> {
    let sh = Shell::new()?;
    let (vm, place) = (testkit::build::target()?.join("vm"), paths::run()?.join("machines"));
    fs::create_dir_all(&vm)?;
    fs::create_dir_all(&place)?;
    let progress = Shared(Mutex::new(Progress::begin("machines")));
    let payload = Payload::new(selection, built, &place)?;

    let begun = Instant::now();
    let supported = cfg!(all(target_arch = "x86_64", target_os = "linux"));
    let made = || {
        ensure!(
            supported,
            "machines need an x86-64 Linux host, because the tests are built for the host"
        );
        let debian = Debian::at(&sh, &vm)?;
        let kernel = debian.kernel(&sh, Kernel::Stable)?;
        Ok((debian, kernel))
    };
    let skipped = |name: &str, error: &anyhow::Error| {
        let mut summary =
            Summary { counts: Counts { skipped: 1, ..Counts::default() }, ..Summary::default() };
        summary.skips.insert(format!("{name}: {}", format!("{error:#}").replace('\n', " ")));
        if selection.require {
            summary.require();
        }
        Run { name: name.to_owned(), summary, time: begun.elapsed() }
    };
    let name = |(layout, kernel): &Kind| format!("machine {layout} {kernel}");
    let (debian, kernel) = match made() {
        Ok(made) => made,
        Err(error) => return Ok(kinds.iter().map(|kind| skipped(&name(kind), &error)).collect()),
    };
    let place = |(layout, kernel): &Kind| place.join(format!("{layout}-{kernel}"));
    // The trial chooses the accelerator of all machines.
    let first = (Layout::V2, Kernel::Stable);
    let accelerator = Accelerator::Tcg;
    let (sh, debian) = (&sh, &debian);
    let mut first =
        Machine { sh, debian, kernel: &kernel, layout: first.0, accelerator, place: place(&first) };
    let accelerator = trial::run(&mut first, &vm, &progress)?;
    // Three at a time, because each machine needs a GiB of memory.
    let queue = Mutex::new(kinds.iter());
    let runs = Mutex::new(Vec::new());
    let work = || {
        // `Shell` is not `Sync`.
        let sh = &Shell::new()?;
        loop {
            let Some(kind) = lock(&queue).next() else { return Ok(()) };
            let name = name(kind);
            let run = match debian.kernel(sh, kind.1) {
                Err(error) => skipped(&name, &error),
                Ok(kernel) => {
                    let layout = kind.0;
                    let place = place(kind);
                    let machine =
                        Machine { sh, debian, kernel: &kernel, layout, accelerator, place };
                    one(&name, &machine, &payload, selection, &progress)?
                }
            };
            lock(&runs).push(run);
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let threads = [(); 3].map(|()| scope.spawn(work));
        threads.into_iter().try_for_each(|thread| {
            thread.join().unwrap_or_else(|_| bail!("a machine's thread panicked"))
        })
    })?;
    Ok(runs.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn one(
    name: &str,
    machine: &Machine<'_>,
    payload: &Payload,
    selection: &Selection,
    progress: &Shared,
) -> Result<Run> {
    let begun = Instant::now();
    let mut report = Report::new(name, payload);
    let run =
        machine.run(payload, Patience::new(selection.long), progress, |line| report.line(line))?;
    let Verdict { mut summary, failures } = report.close(&run);
    for failure in &failures {
        eprintln!("{failure}");
    }
    if selection.require {
        summary.require();
    }
    summary.using.insert(format!("{name}: Linux {}", machine.kernel.release));
    Ok(Run { name: name.to_owned(), summary, time: begun.elapsed() })
}

/// A progress line that several machines share.
#[derive(Debug)]
struct Shared(Mutex<Progress>);

impl Shared {
    fn detail(&self, detail: &str) {
        lock(&self.0).detail(detail);
    }

    fn tick(&self) {
        lock(&self.0).tick();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_kernels_are_covered() {
        let short = kinds(&Layout::ALL, false);
        assert_eq!(short.len(), 3);
        assert!(Layout::ALL.iter().all(|layout| short.iter().any(|kind| kind.0 == *layout)));
        assert!(Kernel::ALL.iter().all(|kernel| short.iter().any(|kind| kind.1 == *kernel)));
        assert_eq!(kinds(&Layout::ALL, true).len(), 9);
    }
}

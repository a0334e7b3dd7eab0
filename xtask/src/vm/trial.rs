//! Before a machine is believed, it has to fail: a boot whose tests go wrong in every way there is, down to a panic of
//! its kernel. The same boot shows which accelerator works.

use std::fs::{self, OpenOptions};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use xshell::Shell;

use super::Layout;
use super::debian::Debian;
use super::initramfs;
use super::machine::{Accelerator, Machine, Patience};
use super::payload::{Payload, Program, Tests};
use super::report::{Report, Verdict};
use crate::counts::Counts;
use crate::progress::Progress;

/// Name, script, how many tests it claims to have, and what must be said of it. They run in this order.
const TRIALS: [(&str, &str, u64, &str); 6] = [
    ("1-passes", "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'", 1, ""),
    (
        "2-fails",
        "echo 'test it ... FAILED'; echo 'test result: FAILED. 0 passed; 1 failed; 0 ignored'; exit 101",
        1,
        "failed: it",
    ),
    (
        "3-lacks",
        "echo 'test result: ok. 1 passed; 0 failed; 0 ignored'",
        2,
        "1 of 2 tests did not run",
    ),
    ("4-dies", "kill -9 $$", 1, "exit status 137, 1 of 1 tests did not run"),
    (
        "5-leaves",
        "mkdir /sys/fs/cgroup/left; echo 'test result: ok. 1 passed; 0 failed; 0 ignored'",
        1,
        "cgroup /sys/fs/cgroup/left",
    ),
    (
        "6-panics",
        "echo c >/proc/sysrq-trigger; sleep 60",
        1,
        "6-panics: its 1 tests did not run to the end",
    ),
];

/// What that comes to.
const COUNTS: Counts = Counts { passed: 3, failed: 4, skipped: 0 };

/// The kernel's last words.
const PANIC: &str = "Kernel panic - not syncing";

/// Tries the machine with KVM where there is one, else with QEMU's own emulation, and leaves it with what works.
pub(super) fn run(sh: &Shell, debian: &Debian, machine: &mut Machine<'_>) -> Result<()> {
    let payload = Payload {
        tests: TRIALS
            .into_iter()
            .map(|(name, script, count, _)| Tests {
                name: name.to_owned(),
                program: Program::Script(script),
                count,
            })
            .collect(),
        ..Payload::default()
    };
    initramfs::write(sh, debian, &payload, machine.initramfs())?;

    // What a kernel does under KVM on this host is learned once; a nested one may hang in its first instruction.
    let learned = machine.initramfs().with_file_name("accelerator");
    let known = fs::read_to_string(&learned).ok();
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if kvm && known.as_deref() != Some("tcg") {
        machine.accelerator = Accelerator::Kvm;
        let patience = Duration::from_secs(10);
        match attempt(machine, &payload, Patience { silent: patience, all: patience }) {
            Ok(()) => return Ok(fs::write(&learned, "kvm")?),
            Err(why) => {
                let why = why.to_string();
                let why = why.lines().next().unwrap_or_default();
                eprintln!("vm: KVM is there and boots no stock kernel, so QEMU emulates: {why}");
            }
        }
    }
    machine.accelerator = Accelerator::Tcg;
    attempt(machine, &payload, Patience::new(false))
        .context("make a machine that can be believed")?;
    if kvm {
        fs::write(&learned, "tcg")?;
    }
    Ok(())
}

fn attempt(machine: &Machine<'_>, payload: &Payload, patience: Patience) -> Result<()> {
    let mut progress = Progress::begin("machine trial");
    let mut report = Report::new(Layout::V2, payload);
    let run = machine.run(Layout::V2, patience, &mut progress, |line| report.line(line))?;
    let Verdict { summary, .. } = report.close(&run);
    let said = summary.problems.join("\n");
    let judged = || {
        for (name, _, _, expected) in TRIALS {
            ensure!(said.contains(expected), "{name} went unnoticed");
        }
        ensure!(!summary.good() && summary.counts == COUNTS, "{}, not {COUNTS}", summary.counts);
        let console = fs::read(&run.console)?;
        let panicked = String::from_utf8_lossy(&console).contains(PANIC);
        ensure!(panicked, "its kernel did not panic");
        ensure!(!said.contains("fault"), "the guest is not as it should be");
        Ok(())
    };
    let judged = judged().with_context(|| format!("{}\n{said}\n{}", run.end, run.tail));
    progress.end(match (&judged, machine.accelerator) {
        (Ok(()), _) => "ok",
        (Err(_), Accelerator::Kvm) => "no KVM",
        (Err(_), Accelerator::Tcg) => "FAILED",
    });
    judged
}

//! Before use, the trial checks that each failure of a machine is detected: the tests of one boot fail in every way, up
//! to a panic of the kernel. The same boot finds the accelerator that works.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use super::Shared;
use super::machine::{Accelerator, Machine, Patience};
use super::payload::{Payload, Program, Tests};
use super::report::{Report, Verdict};
use crate::counts::Counts;

/// The failing tests, in order: name, script, number of expected tests, and a part of the reported problem.
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
        "6-panics: 1 tests did not run to the end",
    ),
];

/// The counts of all trials.
const COUNTS: Counts = Counts { passed: 3, failed: 4, skipped: 0 };

/// The kernel's message before a panic ends the machine.
const PANIC: &str = "Kernel panic - not syncing";

/// Runs the trial with KVM if `/dev/kvm` opens, or else with QEMU's emulation. Returns the accelerator that works.
pub(super) fn run(machine: &mut Machine<'_>, vm: &Path, progress: &Shared) -> Result<Accelerator> {
    // The result of KVM is saved, because a nested KVM may hang in the first instruction, and that costs a timeout.
    let learned = vm.join("accelerator");
    let known = fs::read_to_string(&learned).ok();
    let kvm = OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if kvm && known.as_deref() != Some("tcg") {
        machine.accelerator = Accelerator::Kvm;
        // Generous, because the host may be busy. A kernel that runs prints something within ten seconds.
        let patience = Patience { silent: Duration::from_secs(20), all: Duration::from_secs(60) };
        match attempt(machine, patience, progress) {
            Ok(()) => {
                fs::write(&learned, "kvm")?;
                return Ok(Accelerator::Kvm);
            }
            Err(error) => {
                let first = error.to_string();
                let first = first.lines().next().unwrap_or_default();
                eprintln!(
                    "machines: /dev/kvm does not boot a stock kernel, so QEMU emulates: {first}"
                );
            }
        }
    }
    machine.accelerator = Accelerator::Tcg;
    attempt(machine, Patience::new(false), progress)
        .context("check that each failure of a machine is detected")?;
    if kvm {
        fs::write(&learned, "tcg")?;
    }
    Ok(Accelerator::Tcg)
}

fn attempt(machine: &Machine<'_>, patience: Patience, progress: &Shared) -> Result<()> {
    let tests = TRIALS.map(|(name, script, count, _)| Tests {
        name: name.to_owned(),
        program: Program::Script(script),
        count,
    });
    let payload = Payload { tests: tests.into(), ..Payload::default() };
    let mut report = Report::new("trial", &payload);
    let run = machine.run(&payload, patience, progress, |line| report.line(line))?;
    let Verdict { summary, .. } = report.close(&run);
    let problems = summary.problems.join("\n");
    let judged = || {
        for (name, _, _, expected) in TRIALS {
            ensure!(problems.contains(expected), "{name} was not detected");
        }
        ensure!(!summary.good() && summary.counts == COUNTS, "{}, not {COUNTS}", summary.counts);
        let console = fs::read(&run.console)?;
        let panicked = String::from_utf8_lossy(&console).contains(PANIC);
        ensure!(panicked, "the kernel did not panic");
        ensure!(!problems.contains("fault"), "the guest reported a fault");
        Ok(())
    };
    judged().with_context(|| format!("{}\n{problems}\n{}", run.end, run.tail))
}

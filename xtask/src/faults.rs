//! `cargo xtask faults`: injects each plausible errno into every system call of a launcher, kills the launcher before
//! every call, and checks the invariants after each fault.
//!
//! The crate [`faults`] does the work, as root, in new namespaces without other processes.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use faults::{Choice, PhaseCount, Report, Scene, Shape, isolated};
use testkit::{Binaries, Table};

use crate::progress::{Progress, seconds};
use crate::{rooted, setup};

/// The hidden command that runs inside the new namespaces.
pub(crate) const INSIDE: &str = "__faults";
/// The hidden command that runs as the launcher under test.
pub(crate) const LAUNCHER: &str = "__launcher";

/// The options of the command line.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Fail every call with every errno, and kill the launcher before each (10 min)
    #[arg(long)]
    long: bool,
    /// Only in this phase: plan, prepare, launch, look, adopt, stop, teardown (repeatable)
    #[arg(long = "phase", value_name = "NAME")]
    phases: Vec<String>,
    /// Let the jailer make the pid namespace
    #[arg(long)]
    by_jailer: bool,
    /// Use the official jailer and Firecracker instead of the stand-ins
    #[arg(long)]
    official: bool,
    /// Print JSON instead of a table
    #[arg(long)]
    json: bool,
}

/// Becomes root and starts the run in new namespaces. Returns false on a violation.
pub(crate) fn command() -> Result<bool> {
    setup::ensure(setup::ROOT_TESTS)?;
    rooted()?;
    let status = isolated(std::env::current_exe()?)
        .arg(INSIDE)
        .args(std::env::args_os().skip(2))
        .status()
        .context("make namespaces (unshare)")?;
    Ok(status.success())
}

/// Runs the faults inside the new namespaces and prints the report.
pub(crate) fn inside(options: &Options) -> Result<bool> {
    let shape = if options.by_jailer { Shape::ByJailer } else { Shape::ByLauncher };
    let choice = if options.long { Choice::Whole } else { Choice::Sample };
    let binaries = match (options.official, Binaries::official()) {
        (false, _) => Binaries::stand_ins(),
        (true, Some(official)) => official,
        (true, None) => bail!("the official jailer and Firecracker are not installed"),
    };
    let using = binaries.kind().to_string();
    let scenes = Scene::several(8, &binaries, shape, || {
        // A build may have replaced this process's executable.
        let mut launcher = Command::new("/proc/self/exe");
        launcher.arg(LAUNCHER);
        launcher
    });
    let begun = Instant::now();
    let mut progress = Progress::begin("faults");
    let report = faults::run(&scenes, choice, &options.phases, &mut |done, count, what| {
        progress.detail(format!("{done}/{count} {what}"));
    })?;
    Scene::finish(scenes);
    let good = report.violations.is_empty();
    progress.end(if good { "ok" } else { "FAILED" });
    match options.json {
        true => println!("{}", serde_json::to_string_pretty(&report)?),
        false => {
            print!("{}", table(&report));
            println!("\nusing {using}, in {}", seconds(begun.elapsed()));
            for violation in &report.violations {
                println!("violation: {violation}");
            }
        }
    }
    Ok(good)
}

fn table(report: &Report) -> Table {
    let mut table = Table::new([
        "phase",
        "calls",
        "faults",
        "errors",
        "successes",
        "kills",
        "recoveries",
        "missed",
        "violations",
    ]);
    for count in report.phases.iter().chain([&report.total()]) {
        let PhaseCount {
            phase,
            calls,
            faults,
            reported,
            succeeded,
            kills,
            recovered,
            missed,
            violations,
            ..
        } = count;
        let numbers = [calls, faults, reported, succeeded, kills, recovered, missed, violations];
        let [calls, faults, reported, succeeded, kills, recovered, missed, violations] =
            numbers.map(u64::to_string);
        table.row([
            phase.clone(),
            calls,
            faults,
            reported,
            succeeded,
            kills,
            recovered,
            missed,
            violations,
        ]);
    }
    table
}

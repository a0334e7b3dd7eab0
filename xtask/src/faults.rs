//! `cargo xtask faults`: injects each plausible errno into every system call of a launcher, kills the launcher before
//! every call, and checks the invariants after each fault.
//!
//! The crate [`faults`] does the work, as root, in new namespaces without other processes.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use faults::{Choice, PhaseCount, Report, Scene, Shape, isolated, launcher};
use lexopt::prelude::*;
use testkit::Binaries;

use crate::progress::{Progress, seconds};
use crate::table::Table;
use crate::{no_more, paths, root, setup};

/// The hidden command that runs inside the new namespaces.
pub(crate) const INSIDE: &str = "__faults";
/// The hidden command that runs as the launcher under test.
pub(crate) const LAUNCHER: &str = "__launcher";

/// The options of the command line.
#[derive(Debug, Clone)]
struct Options {
    choice: Choice,
    /// The phases to run; empty for all phases.
    phases: Vec<String>,
    shape: Shape,
    official: bool,
    json: bool,
}

impl Options {
    fn parse(args: &mut lexopt::Parser) -> Result<Self> {
        let mut options = Self {
            choice: Choice::Sample,
            phases: Vec::new(),
            shape: Shape::ByLauncher,
            official: false,
            json: false,
        };
        while let Some(arg) = args.next()? {
            match arg {
                Long("long") => options.choice = Choice::Whole,
                Long("phase") => options.phases.push(args.value()?.string()?),
                Long("by-jailer") => options.shape = Shape::ByJailer,
                Long("official") => options.official = true,
                Long("json") => options.json = true,
                other => return Err(other.unexpected().into()),
            }
        }
        Ok(options)
    }
}

/// Builds the stand-ins, becomes root and starts the run in new namespaces. Returns false on a violation.
pub(crate) fn command(args: &mut lexopt::Parser) -> Result<bool> {
    // A wrong option is an error of this process, before the change of namespaces.
    Options::parse(args)?;
    if std::env::var_os(testkit::STAND_INS_ENV).is_none() || !root::is_root() {
        setup::ensure(setup::ROOT_TESTS)?;
        let progress = Progress::begin("build stand-ins");
        let stand_ins = testkit::build::stand_ins(&paths::target()?)?;
        progress.end("ok");
        match root::again(&std::env::current_exe()?, root::environment(&stand_ins))? {}
    }
    let status = isolated(std::env::current_exe()?)
        .arg(INSIDE)
        .args(std::env::args_os().skip(2))
        .status()
        .context("make namespaces (unshare)")?;
    Ok(status.success())
}

/// Runs the launcher under test. Returns true on success.
pub(crate) fn launcher(args: lexopt::Parser) -> Result<bool> {
    no_more(args)?;
    Ok(launcher::serve())
}

/// Runs the faults inside the new namespaces and prints the report.
pub(crate) fn inside(args: &mut lexopt::Parser) -> Result<bool> {
    let options = Options::parse(args)?;
    let binaries = match (options.official, Binaries::official()) {
        (false, _) => Binaries::stand_ins(),
        (true, Some(official)) => official,
        (true, None) => bail!("the official jailer and Firecracker are not installed"),
    };
    let using = binaries.kind().to_string();
    let scenes = Scene::several(8, &binaries, options.shape, || {
        // A build may have replaced this process's executable.
        let mut launcher = Command::new("/proc/self/exe");
        launcher.arg(LAUNCHER);
        launcher
    });
    let begun = Instant::now();
    let mut progress = Progress::begin("faults");
    let report =
        faults::run(&scenes, options.choice, &options.phases, &mut |done, count, what| {
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

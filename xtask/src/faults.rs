//! `cargo xtask faults`: every system call of a launcher fails once with each plausible errno, and the launcher is killed
//! before each; what must hold afterwards is looked at each time.
//!
//! The work is [`faults`]'s. It is done as root, in namespaces of its own where there are no other processes.

use std::process::Command;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use faults::{Choice, PhaseCount, Report, Scene, Shape, isolated, launcher};
use lexopt::prelude::*;
use testkit::Binaries;

use crate::progress::{Progress, seconds};
use crate::table::Table;
use crate::{no_more, paths, root, setup};

/// The hidden command of the part in its own namespaces.
pub(crate) const INSIDE: &str = "__faults";
/// The hidden command that is a launcher.
pub(crate) const LAUNCHER: &str = "__launcher";

/// What the command line asks for.
#[derive(Debug, Clone)]
struct Options {
    choice: Choice,
    /// All, where none is named.
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

/// Builds what it needs as whoever we are, and goes where it can be done; whether all is well.
pub(crate) fn command(args: &mut lexopt::Parser) -> Result<bool> {
    // Refused here, and not as root in another namespace.
    Options::parse(args)?;
    if std::env::var_os(testkit::STAND_INS_ENV).is_none() || !root::is_root() {
        setup::ensure(setup::ROOT_TESTS)?;
        let progress = Progress::begin("build stand-ins");
        let stand_ins = testkit::build::stand_ins(&paths::target()?)?;
        progress.end("ok");
        return root::again(&std::env::current_exe()?, root::environment(&stand_ins));
    }
    let status = isolated(std::env::current_exe()?)
        .arg(INSIDE)
        .args(std::env::args_os().skip(2))
        .status()
        .context("make namespaces (unshare)")?;
    Ok(status.success())
}

/// A launcher: whether it came through.
pub(crate) fn launcher(args: lexopt::Parser) -> Result<bool> {
    no_more(args)?;
    Ok(launcher::serve())
}

/// The part in its own namespaces.
pub(crate) fn inside(args: &mut lexopt::Parser) -> Result<bool> {
    let options = Options::parse(args)?;
    let binaries = match (options.official, Binaries::official()) {
        (false, _) => Binaries::stand_ins(),
        (true, Some(official)) => official,
        (true, None) => bail!("no official jailer and Firecracker are installed"),
    };
    let using = binaries.kind().to_string();
    let scenes = Scene::several(8, &binaries, options.shape, || {
        // The file this process was started from may have been replaced by a build.
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

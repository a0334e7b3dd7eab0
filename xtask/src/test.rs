//! `cargo xtask test`: runs every check, one step at a time; the virtual machines run in parallel with the other steps.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use testkit::Table;

use crate::counts::{Counts, Line, Selection, Summary};
use crate::progress::{Progress, seconds};
use crate::test_root::Built;
use crate::vm::{self, Layout};
use crate::{binaries, command, paths, setup, test_root};

/// Runs all steps and prints the table. Returns true if no step failed.
pub(crate) fn run(selection: &Selection) -> Result<bool> {
    setup::ensure(setup::LINK)?;
    setup::ensure(setup::ROOT_TESTS)?;
    let begun = Instant::now();
    let mut steps = Vec::new();
    let [format, others @ ..] = CHECKS;
    steps.push(check(format)?);
    // The machines and the root tests share this build.
    let building = Instant::now();
    let built = match Built::new(selection) {
        Ok(built) => Some(built),
        Err(error) => {
            steps.push(("build".to_owned(), failed(&error), building.elapsed()));
            None
        }
    };
    std::thread::scope(|scope| -> Result<()> {
        let machines = built.as_ref().map(|built| {
            steps.push(("build".to_owned(), Summary::check(true), building.elapsed()));
            scope.spawn(move || vm::run(&vm::kinds(&Layout::ALL, selection.long), selection, built))
        });
        for step in others {
            steps.push(check(step)?);
        }
        steps.push(minimum_rust()?);
        if let Some(built) = &built {
            steps.push(unprivileged(selection)?);
            let begun = Instant::now();
            let summary = test_root::run(selection, built).unwrap_or_else(|error| failed(&error));
            steps.push(("root tests".to_owned(), summary, begun.elapsed()));
        }
        for name in ["mutants", "soak"].into_iter().filter(|_| selection.long) {
            // Each command becomes root by itself.
            let mut command = Command::new(std::env::current_exe()?);
            command.arg(name);
            steps.push(step(name, command)?);
        }
        let runs = machines.map(|machines| {
            machines.join().unwrap_or_else(|_| Err(anyhow!("the machines' thread panicked")))
        });
        match runs {
            Some(Ok(runs)) => {
                steps.extend(runs.into_iter().map(|run| (run.name, run.summary, run.time)));
            }
            Some(Err(error)) => steps.push(("machines".to_owned(), failed(&error), Duration::ZERO)),
            None => {}
        }
        Ok(())
    })?;

    let mut table = Table::new(["step", "result", "passed", "failed", "skipped", "time"]);
    let mut all = Summary::default();
    for (name, summary, time) in steps {
        let Counts { passed, failed, skipped } = summary.counts;
        let [passed, failed, skipped] = [passed, failed, skipped].map(|number| number.to_string());
        table.row([name, summary.verdict().to_owned(), passed, failed, skipped, seconds(time)]);
        all += summary;
    }
    print!("\n{table}");
    println!("\nin {}; machines ran in parallel with the other steps", seconds(begun.elapsed()));
    for remark in all.remarks() {
        println!("{remark}");
    }
    println!("{}", all.counts);
    Ok(all.good())
}

/// The name, the result and the duration of a step.
type Step = (String, Summary, Duration);

/// A step that runs one cargo command.
struct Check {
    name: &'static str,
    cargo: &'static [&'static str],
    rustdocflags: Option<&'static str>,
}

const CHECKS: [Check; 5] = [
    Check { name: "format", cargo: &["fmt", "--all", "--check"], rustdocflags: None },
    Check {
        name: "lints",
        cargo: &[
            "clippy",
            "--workspace",
            "--all-targets",
            "--all-features",
            "--",
            "--deny",
            "warnings",
        ],
        rustdocflags: None,
    },
    // In a workspace build, cargo unifies features. Alone, a crate must compile with its own features.
    Check {
        name: "crates alone",
        cargo: &[
            "clippy",
            "-p=jail-cmd",
            "-p=jail-fs",
            "-p=jail-cgroup",
            "--",
            "--deny",
            "warnings",
        ],
        rustdocflags: None,
    },
    // Without a build: the crates are not in a registry yet.
    Check {
        name: "packages",
        cargo: &[
            "package",
            "--no-verify",
            "--allow-dirty",
            "--offline",
            "-p=jail-cmd",
            "-p=jail-fs",
            "-p=jail-cgroup",
            "-p=microvm-runtime",
        ],
        rustdocflags: None,
    },
    Check {
        name: "docs",
        cargo: &["doc", "--no-deps", "--workspace", "--all-features"],
        rustdocflags: Some("--deny warnings"),
    },
];

/// The `rust-version` of the published crates.
const MINIMUM_RUST: &str = "1.85";

const CRATES: [&str; 4] = ["jail-cmd", "jail-fs", "jail-cgroup", "microvm-runtime"];

fn check(Check { name, cargo: arguments, rustdocflags }: Check) -> Result<Step> {
    let mut command = cargo(arguments);
    command.envs(rustdocflags.map(|flags| ("RUSTDOCFLAGS", flags)));
    step(name, command)
}

/// Checks the published crates with the minimum Rust version: cargo is `MICROVM_MSRV_CARGO`, or rustup's toolchain.
fn minimum_rust() -> Result<Step> {
    let rustup = Command::new("rustup").args(["run", MINIMUM_RUST, "cargo", "--version"]).output();
    let mut cargo = match std::env::var_os("MICROVM_MSRV_CARGO") {
        Some(cargo) => Command::new(cargo),
        None if rustup.is_ok_and(|output| output.status.success()) => {
            let mut rustup = Command::new("rustup");
            rustup.args(["run", MINIMUM_RUST, "cargo"]);
            rustup
        }
        None => {
            let why =
                format!("minimum Rust: no toolchain {MINIMUM_RUST}, and no MICROVM_MSRV_CARGO");
            let summary = Summary {
                counts: Counts { skipped: 1, ..Counts::default() },
                ..Summary::default()
            };
            return Ok((
                "minimum Rust".to_owned(),
                Summary { skips: [why].into(), ..summary },
                Duration::ZERO,
            ));
        }
    };
    cargo.current_dir(testkit::build::workspace()).args([
        "check",
        "--all-targets",
        "--all-features",
    ]);
    cargo.args(CRATES.map(|name| format!("-p={name}")));
    // The target `host-tuple` of the configuration is too new.
    cargo.env("CARGO_BUILD_TARGET", format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    cargo.env("CARGO_TARGET_DIR", testkit::build::target()?.join("minimum-rust"));
    step("minimum Rust", cargo)
}

/// Runs a step that consists of one command.
fn step(name: &str, command: Command) -> Result<Step> {
    let mut progress = Progress::begin(name);
    let finished = command::run(command, &paths::log(name)?, &mut progress, building)?;
    let passed = finished.status.success();
    if !passed {
        progress.clear();
        eprintln!("{}", finished.output);
    }
    let time = progress.end(if passed { "ok" } else { "FAILED" });
    Ok((name.to_owned(), Summary::check(passed), time))
}

/// Runs the tests that need no root: unit, doc and property tests. libtest ignores the root tests here.
fn unprivileged(selection: &Selection) -> Result<Step> {
    let mut progress = Progress::begin("tests");
    let skips = tempfile::NamedTempFile::new()?;
    let mut test = cargo(&["test", "--workspace", "--all-features", "--no-fail-fast"]);
    test.env(testkit::SKIPS_ENV, skips.path());
    if selection.long {
        test.env("MICROVM_TEST_LONG", "1");
    }
    let mut summary = Summary::default();
    let mut ignored = Vec::new();
    let finished = command::run(test, &paths::log("tests")?, &mut progress, |line| {
        match Line::parse(line) {
            Some(Line::Passed(name) | Line::Failed(name)) => return Some(name.to_owned()),
            Some(Line::Ignored(_, why)) if why.starts_with("needs root") => {}
            // A doc example marked `ignore`, or a disabled test.
            Some(Line::Ignored(name, why)) => ignored.push(format!("{name}: {why}")),
            Some(Line::Result { passed, failed }) => {
                summary.counts += Counts { passed, failed, skipped: 0 };
            }
            Some(Line::Using(_)) => {}
            None => return building(line),
        }
        None
    })?;
    summary.skip(std::fs::read_to_string(skips.path())?.lines().map(str::to_owned));
    // libtest does not count ignored tests as passed.
    summary.counts.skipped += u64::try_from(ignored.len())?;
    summary.skips.extend(ignored);
    if selection.require {
        summary.require();
    }
    if !finished.status.success() {
        // A build failure or a killed binary has no failed test to count.
        summary.counts.failed = summary.counts.failed.max(1);
        progress.clear();
        eprintln!("{}", finished.output);
    }
    let time = progress.end(if summary.good() { "ok" } else { "FAILED" });
    Ok(("tests".to_owned(), summary, time))
}

fn failed(error: &anyhow::Error) -> Summary {
    eprintln!("error: {error:#}");
    Summary { problems: vec![format!("{error:#}")], ..Summary::check(false) }
}

fn cargo(arguments: &[&str]) -> Command {
    let mut cargo = Command::new(binaries::cargo());
    cargo.current_dir(testkit::build::workspace()).args(arguments);
    cargo
}

/// Returns the line if the line shows cargo's progress.
fn building(line: &str) -> Option<String> {
    let line = line.trim();
    let verbs = ["Compiling ", "Checking ", "Documenting ", "Running ", "Doc-tests "];
    verbs.iter().any(|verb| line.starts_with(verb)).then(|| line.to_owned())
}

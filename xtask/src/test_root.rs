//! Runs the root tests: the ignored tests of each test binary, as root, in a private mount namespace. Then checks that
//! nothing with the mark of the run is left on the host.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};

use crate::binaries::{self, TestBinary};
use crate::counts::{self, Line, Selection, Summary};
use crate::host;
use crate::progress::{Progress, seconds};
use crate::vm::{self, Layout};
use crate::{command, paths, root, setup};

/// The job of the root process.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Plan {
    selection: Selection,
    binaries: Vec<TestBinary>,
    logs: PathBuf,
}

/// The built test binaries, and the directory of the stand-ins.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) binaries: Vec<TestBinary>,
    pub(crate) stand_ins: PathBuf,
}

impl Built {
    /// Builds the test binaries of the selected packages, and the stand-ins.
    pub(crate) fn new(selection: &Selection) -> Result<Self> {
        let mut progress = Progress::begin("build tests");
        let binaries = binaries::build(selection, &mut progress)?;
        let stand_ins = testkit::build::stand_ins(&testkit::build::target()?)?;
        progress.end("ok");
        Ok(Self { binaries, stand_ins })
    }
}

/// Runs `cargo xtask test-root` and prints the result. Returns true if no test failed.
pub(crate) fn command(selection: &Selection, layouts: Option<Vec<Layout>>) -> Result<bool> {
    setup::ensure(setup::LINK)?;
    let built = Built::new(selection)?;
    let mut summary = Summary::default();
    match layouts {
        Some(layouts) => {
            for run in vm::run(&vm::kinds(&layouts, selection.long), selection, &built)? {
                println!("{:<28} {:<8} {}", run.name, run.summary.verdict(), seconds(run.time));
                summary += run.summary;
            }
        }
        None => summary = run(selection, &built)?,
    }
    for remark in summary.remarks() {
        println!("{remark}");
    }
    println!("{}", summary.counts);
    Ok(summary.good())
}

/// Runs the selected root tests as root on this host.
pub(crate) fn run(selection: &Selection, built: &Built) -> Result<Summary> {
    setup::ensure(setup::ROOT_TESTS)?;
    let logs = paths::log("root tests")?;
    let mut env = root::environment(&built.stand_ins);
    if selection.long {
        env.insert("MICROVM_TEST_LONG".to_owned(), "1".into());
    }
    let plan = Plan { selection: selection.clone(), binaries: built.binaries.clone(), logs };
    let mut summary = root::ask(&plan, env)?;
    if selection.require {
        summary.require();
    }
    Ok(summary)
}

/// Runs the root tests in the root process.
pub(crate) fn run_as_root(plan: &Plan) -> Result<Summary> {
    host::adopt_orphans()?;
    let run = testkit::new_run();
    let mut summary = Summary::default();
    for binary in &plan.binaries {
        let tests = binaries::ignored_tests(binary, &plan.selection.filters)?;
        if !tests.is_empty() {
            summary += run_binary(plan, binary, tests.len(), &run)?;
        }
    }
    summary
        .problems
        .extend(host::end_orphans()?.into_iter().map(|orphan| format!("left behind: {orphan}")));
    let left = testkit::left_by_run(&run);
    summary.problems.extend(left.into_iter().map(|thing| format!("left behind: {thing}")));
    Ok(summary)
}

/// Runs the `count` ignored tests of one binary.
fn run_binary(plan: &Plan, binary: &TestBinary, count: usize, run: &str) -> Result<Summary> {
    let skips = tempfile::NamedTempFile::new().context("make the file of skips")?;
    let mut test = isolated(&binary.path);
    test.args(["--ignored", "--show-output"])
        .args(&plan.selection.filters)
        .current_dir(&binary.dir);
    test.env(testkit::SKIPS_ENV, skips.path()).env(testkit::RUN_ENV, run);

    let label = format!("{} {}", binary.package, binary.target);
    let mut progress = Progress::begin(label.clone());
    let mut summary = Summary::default();
    let mut done = 0_usize;
    let mut ended = false;
    let log = plan.logs.with_file_name(format!("root-{}-{}.log", binary.package, binary.target));
    let finished = command::run(test, &log, &mut progress, |line| {
        let name = match Line::parse(line)? {
            Line::Passed(name) | Line::Failed(name) | Line::Ignored(name, _) => name,
            Line::Using(using) => {
                summary.using.insert(using.to_owned());
                return None;
            }
            Line::Result { passed, failed } => {
                summary.counts.passed += passed;
                summary.counts.failed += failed;
                ended = true;
                return None;
            }
        };
        done += 1;
        Some(format!("{done}/{count} {name}"))
    })?;

    summary.skip(
        std::fs::read_to_string(skips.path()).context("read the skips")?.lines().map(str::to_owned),
    );
    if !ended {
        // The binary was killed or exited before libtest printed a result.
        summary.counts.failed += 1;
        summary.problems.push(format!("{label}: {} before all tests had run", finished.status));
    } else if !finished.status.success() && summary.counts.failed == 0 {
        summary.counts.failed += 1;
        summary.problems.push(format!("{label}: {}", finished.status));
    }
    if summary.counts.failed > 0 {
        progress.clear();
        eprintln!("{}\nwhole output: {}", counts::failures(&finished.output), log.display());
    }
    progress.end(if summary.counts.failed == 0 { "ok" } else { "FAILED" });
    Ok(summary)
}

/// Returns a command that runs `program` in a new mount namespace; no mount propagates to the host (unshare(1)).
fn isolated(program: &Path) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--"]).arg(program);
    unshare
}

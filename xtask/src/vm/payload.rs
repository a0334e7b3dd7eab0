//! What a machine is to run: static test binaries, the stand-ins they start, what they are told.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail, ensure};

use crate::counts::Selection;
use crate::progress::Progress;
use crate::{binaries, paths};

/// Where cargo puts what is linked for the machine; also keeps build scripts from being linked so.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// How the machine's programs are built: they bring their libraries along, and little else. Emulated, they take their
/// time: a first level of optimisation is repaid at once.
const BUILD: [(&str, &str); 4] = [
    ("CARGO_ENCODED_RUSTFLAGS", "-Ctarget-feature=+crt-static"),
    ("CARGO_PROFILE_DEV_DEBUG", "0"),
    ("CARGO_PROFILE_DEV_STRIP", "debuginfo"),
    ("CARGO_PROFILE_DEV_OPT_LEVEL", "1"),
];

/// The programs of one machine and what they are given.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) tests: Vec<Tests>,
    /// Where the stand-ins and the guest kernel are on this host.
    pub(super) stand_ins: Option<PathBuf>,
    pub(super) arguments: Vec<String>,
    pub(super) environment: BTreeMap<String, String>,
}

/// A test binary, or a script that acts like one.
#[derive(Debug)]
pub(super) struct Tests {
    /// A file name in the guest.
    pub(super) name: String,
    pub(super) program: Program,
    /// How many tests it must run.
    pub(super) count: u64,
}

/// What there is to execute.
#[derive(Debug)]
pub(super) enum Program {
    Binary(PathBuf),
    Script(&'static str),
}

impl Payload {
    /// Builds the selected tests under `vm`; those binaries are taken that have root tests.
    pub(super) fn build(selection: &Selection, vm: &Path) -> Result<Self> {
        let mut progress = Progress::begin("build static");
        let build = vm.join("build");
        let directory = build.display().to_string();
        let mut arguments = vec!["--tests", "--target", TARGET, "--target-dir", &directory];
        let mut filters = selection.filters.clone();
        if selection.packages.is_empty() {
            // The files' tests know no control groups, and race for minutes where the processor is emulated; there a
            // launcher would fail and die for as long, and so would a fleet, the launcher's own races, and a hundred
            // launches for a moment that one may hit.
            for package in ["xtask", "fs-tests", "faults-tests"] {
                arguments.extend(["--exclude", package]);
            }
            for long in ["fleet::", "races::", "an_end_at_any_moment_is_noticed"] {
                filters.extend(["--skip", long].map(str::to_owned));
            }
        }
        let built = binaries::build(selection, &arguments, &BUILD, &mut progress)?;
        let mut tests: Vec<Tests> = Vec::new();
        for binary in built {
            let count = binaries::ignored_tests(&binary, &filters)?.len();
            let name = format!("{}.{}", binary.package, binary.target);
            ensure!(
                tests.iter().all(|other| other.name != name),
                "two test binaries are called {name}"
            );
            if count > 0 {
                tests.push(Tests {
                    name,
                    program: Program::Binary(binary.path),
                    count: count.try_into()?,
                });
            }
        }
        if tests.is_empty() {
            bail!("no root test is selected: a machine would have nothing to run");
        }
        progress.end("ok");
        Ok(Self {
            tests,
            stand_ins: Some(testkit::build::stand_ins(&paths::target()?)?),
            arguments: filters,
            environment: environment(selection),
        })
    }
}

/// What of our environment the tests go by; paths mean nothing over there.
fn environment(selection: &Selection) -> BTreeMap<String, String> {
    let mut env: BTreeMap<_, _> = std::env::vars()
        .filter(|(name, _)| name.starts_with("PROPTEST_") || name == "RUST_BACKTRACE")
        .collect();
    if selection.long {
        env.insert("MICROVM_TEST_LONG".to_owned(), "1".to_owned());
    }
    env
}

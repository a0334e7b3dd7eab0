//! The programs that a machine runs: the host's static test binaries, and the stand-ins.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};

use crate::binaries;
use crate::counts::Selection;
use crate::test_root::Built;

/// The packages that machines skip, unless `--package` names a package. Tests of jail-fs use no control groups. Fault
/// injection takes minutes on an emulated processor. The hostile VMM takes more memory than a machine has.
const ON_THE_HOST: [&str; 4] = ["xtask", "fs-tests", "faults-tests", "hostile-tests"];

/// The tests that machines skip. Races, fleets and crowds take minutes on an emulated processor. Quotas, fork bombs and kills of
/// thousands are compared with the clock, and an emulated processor stops for other processes of the host.
const LONG: [&str; 9] = [
    "fleet::",
    "races::",
    "any_end_is_noticed",
    "soak",
    "time::",
    "row_32_",
    "row_40_",
    "crowd::",
    "alarms_forks_and_threads",
];

/// The programs of one machine, with arguments and environment.
#[derive(Debug, Default)]
pub(super) struct Payload {
    pub(super) tests: Vec<Tests>,
    /// The directory of the stand-ins and the guest kernel on this host.
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
    /// The number of tests that must run.
    pub(super) count: u64,
}

/// An executable of the payload.
#[derive(Debug)]
pub(super) enum Program {
    Binary(PathBuf),
    Script(&'static str),
}

impl Payload {
    /// Selects the binaries with root tests, and strips the debug information.
    pub(super) fn new(selection: &Selection, built: &Built, dir: &Path) -> Result<Self> {
        let mut filters = selection.filters.clone();
        let all = selection.packages.is_empty();
        if all {
            filters.extend(LONG.iter().flat_map(|long| ["--skip".to_owned(), (*long).to_owned()]));
        }
        let stripped = dir.join("programs");
        fs::create_dir_all(&stripped)?;
        let mut tests: Vec<Tests> = Vec::new();
        for binary in &built.binaries {
            if all && ON_THE_HOST.contains(&binary.package.as_str()) {
                continue;
            }
            let count = binaries::ignored_tests(binary, &filters)?.len();
            if count == 0 {
                continue;
            }
            let name = format!("{}.{}", binary.package, binary.target);
            ensure!(
                tests.iter().all(|other| other.name != name),
                "two test binaries have the name {name}"
            );
            let program = stripped.join(&name);
            let strip = Command::new("strip").arg("-o").arg(&program).arg(&binary.path).output();
            let strip = strip.context("start strip")?;
            ensure!(strip.status.success(), "strip: {}", String::from_utf8_lossy(&strip.stderr));
            ensure!(
                is_static(&fs::read(&program)?),
                "{name} is not static; unset RUSTFLAGS, which override .cargo/config.toml"
            );
            tests.push(Tests { name, program: Program::Binary(program), count: count.try_into()? });
        }
        if tests.is_empty() {
            bail!("the selection contains no root test for a machine");
        }
        Ok(Self {
            tests,
            stand_ins: Some(built.stand_ins.clone()),
            arguments: filters,
            environment: environment(selection),
        })
    }
}

/// Returns true if the program needs no dynamic loader.
fn is_static(program: &[u8]) -> bool {
    !program.get(..4096).unwrap_or(program).windows(6).any(|bytes| bytes == b"/lib64")
}

/// Returns the variables to pass to the tests. Variables with paths of the host are left out.
fn environment(selection: &Selection) -> BTreeMap<String, String> {
    let mut env: BTreeMap<_, _> = std::env::vars()
        .filter(|(name, _)| name.starts_with("PROPTEST_") || name == "RUST_BACKTRACE")
        .collect();
    if selection.long {
        env.insert("MICROVM_TEST_LONG".to_owned(), "1".to_owned());
    }
    env
}

//! Runs the privileged parts: starts this program again, under sudo if the calling user is not root.
//!
//! The root process reads the job from stdin and writes the answer to stdout, both as JSON. env(1) passes the
//! environment, because sudo drops all variables.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::counts::Summary;
use crate::test_root;

/// The hidden command that runs a [`test_root::Plan`] from stdin.
pub(crate) const SUBCOMMAND: &str = "__as-root";

/// Returns true if this process runs as root.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Returns the environment of the root process: the variables that tests use, and the path of the stand-ins.
pub(crate) fn environment(stand_ins: &Path) -> BTreeMap<String, OsString> {
    let ours = |name: &str| {
        name == "PATH"
            || name == "RUST_BACKTRACE"
            || name.starts_with("MICROVM_")
            || name.starts_with("PROPTEST_")
    };
    let mut env: BTreeMap<String, OsString> = std::env::vars_os()
        .filter_map(|(name, value)| {
            Some((name.into_string().ok().filter(|name| ours(name))?, value))
        })
        .collect();
    env.insert(testkit::STAND_INS_ENV.to_owned(), stand_ins.into());
    env
}

/// Runs the root tests in a root process with this environment, and returns the result.
pub(crate) fn ask(job: &test_root::Plan, env: BTreeMap<String, OsString>) -> Result<Summary> {
    // The running executable, even if cargo has replaced the file.
    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let mut command = as_root(&program, env);
    let mut child = start(command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut stdin = child.stdin.take().context("no pipe to the root process")?;
    // If sudo refuses, the write fails too, and the exit status below is the better error.
    let _ = stdin.write_all(&serde_json::to_vec(job)?);
    drop(stdin);
    let output = child.wait_with_output().context("wait for the root process")?;
    if !output.status.success() {
        match is_root() {
            true => bail!("the root process failed: {}", output.status),
            false => bail!("the root process failed under sudo: {}; {NEEDS_ROOT}", output.status),
        }
    }
    serde_json::from_slice(&output.stdout).context("read the answer of the root process")
}

/// Runs a program as root in place of this process (execve(2)): a signal to this process reaches the program.
pub(crate) fn again(
    program: &Path,
    arguments: impl IntoIterator<Item = OsString>,
    env: BTreeMap<String, OsString>,
) -> Result<Infallible> {
    match as_root(program, env).args(arguments).exec() {
        error if error.kind() == std::io::ErrorKind::NotFound => bail!(NEEDS_ROOT),
        error => Err(error).context("start the root process"),
    }
}

/// Returns a command that runs the program as root.
fn as_root(program: &Path, env: BTreeMap<String, OsString>) -> Command {
    let mut command = Command::new("env");
    if !is_root() {
        command = Command::new("sudo");
        if !std::io::stdin().is_terminal() {
            // Without a terminal, sudo would wait for a password for ever.
            command.arg("--non-interactive");
        }
        command.args(["--", "env"]);
    }
    for (name, value) in env {
        let mut setting = OsString::from(name + "=");
        setting.push(value);
        command.arg(setting);
    }
    command.arg(program);
    command
}

fn start(command: &mut Command) -> Result<Child> {
    match command.spawn() {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(NEEDS_ROOT),
        child => child.context("start the root process"),
    }
}

const NEEDS_ROOT: &str = "this command needs root: run xtask as root or install sudo; \
                          `cargo xtask test-root --vm all` needs neither";

/// Reads a plan, runs the tests and writes the result: the root process of [`ask`].
pub(crate) fn serve() -> Result<()> {
    if !is_root() {
        bail!("`{SUBCOMMAND}` is internal and needs root");
    }
    let job: test_root::Plan =
        serde_json::from_reader(std::io::stdin().lock()).context("read the job")?;
    let answer: Summary = test_root::run_as_root(&job)?;
    std::io::stdout().write_all(&serde_json::to_vec(&answer)?)?;
    Ok(())
}

//! The parts that need root: this same program again, under sudo where this is not root.
//!
//! The job goes to the other process's stdin and the answer comes back through its stdout, both as JSON; the environment
//! goes through env(1), since sudo keeps none.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::counts::Summary;
use crate::{demo, test_root};

/// The hidden command that answers a [`Job`] from stdin.
pub(crate) const SUBCOMMAND: &str = "__as-root";

/// What only root can do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Run the root tests.
    Test(test_root::Plan),
    /// Boot a VM and look at it.
    Demo,
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Of [`Job::Test`].
    Tested(Summary),
    /// Of [`Job::Demo`].
    Shown(demo::Report),
}

fn perform(job: Job) -> Result<Answer> {
    Ok(match job {
        Job::Test(plan) => Answer::Tested(test_root::run_as_root(&plan)?),
        Job::Demo => Answer::Shown(demo::run_as_root()?),
    })
}

/// Whether this process is root already.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// The environment of root's part: everything of ours that is named so, and where the stand-ins and guests are.
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

/// Has the job done as root, in this environment.
pub(crate) fn ask(job: &Job, env: BTreeMap<String, OsString>) -> Result<Answer> {
    // This very file, also when cargo has put a newer one in its place.
    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let mut command = as_root(&program, env);
    let mut child = start(command.arg(SUBCOMMAND).stdin(Stdio::piped()).stdout(Stdio::piped()))?;
    let mut stdin = child.stdin.take().context("no pipe to the root part")?;
    // A sudo that refuses reads nothing; its status tells.
    let _ = stdin.write_all(&serde_json::to_vec(job)?);
    drop(stdin);
    let output = child.wait_with_output().context("wait for the root part")?;
    if !output.status.success() {
        match is_root() {
            true => bail!("the root part: {}", output.status),
            false => bail!("the root part, under sudo: {}; {NEEDS_ROOT}", output.status),
        }
    }
    serde_json::from_slice(&output.stdout).context("read the answer of the root part")
}

/// Has another build of this program do all of this command as root, in this environment; whether that went well.
pub(crate) fn again(program: &Path, env: BTreeMap<String, OsString>) -> Result<bool> {
    let status = start(as_root(program, env).args(std::env::args_os().skip(1)))?.wait()?;
    Ok(status.success())
}

/// The program, as root.
fn as_root(program: &Path, env: BTreeMap<String, OsString>) -> Command {
    let mut command = Command::new("env");
    if !is_root() {
        command = Command::new("sudo");
        if !std::io::stdin().is_terminal() {
            // Nobody there to type a password: fail rather than hang.
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
        child => child.context("start the root part"),
    }
}

const NEEDS_ROOT: &str = "it needs root: run it as root or where sudo works, or take \
                          `cargo xtask test-root --vm all`, which needs neither";

/// The other side of [`ask`].
pub(crate) fn serve() -> Result<()> {
    if !is_root() {
        bail!("`{SUBCOMMAND}` is for the root part of the other commands");
    }
    let job = serde_json::from_reader(std::io::stdin().lock()).context("read the job")?;
    let answer = perform(job)?;
    std::io::stdout().write_all(&serde_json::to_vec(&answer)?)?;
    Ok(())
}

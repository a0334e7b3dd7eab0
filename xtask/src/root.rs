//! The parts that need root: done here where this is root, else by this same program under sudo.
//!
//! The plan goes to the other process's stdin and its answer comes back through stdout, both as JSON, so that no
//! environment need survive sudo.

use std::io::{IsTerminal as _, Write as _};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::counts::Summary;
use crate::test_root;

/// The hidden command that answers a [`Job`] from stdin.
pub(crate) const SUBCOMMAND: &str = "__as-root";

/// What only root can do.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Job {
    /// Run the root tests.
    Test(test_root::Plan),
}

/// What came of it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// Of [`Job::Test`].
    Tested(Summary),
}

fn perform(job: Job) -> Result<Answer> {
    match job {
        Job::Test(plan) => test_root::run_as_root(&plan).map(Answer::Tested),
    }
}

/// Whether this process is root already.
pub(crate) fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Does the job as root.
pub(crate) fn ask(job: Job) -> Result<Answer> {
    if is_root() {
        return perform(job);
    }
    let mut sudo = Command::new("sudo");
    if !std::io::stdin().is_terminal() {
        // Nobody there to type a password: fail rather than hang.
        sudo.arg("--non-interactive");
    }
    // This very file, also when cargo has put a newer one in its place.
    sudo.arg("--").arg(format!("/proc/{}/exe", std::process::id())).arg(SUBCOMMAND);
    let mut child = match sudo.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn() {
        Ok(child) => child,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => bail!(NEEDS_ROOT),
        Err(error) => return Err(error).context("start sudo"),
    };
    let mut stdin = child.stdin.take().context("no pipe to sudo")?;
    // A sudo that refuses reads nothing; its status tells.
    let _ = stdin.write_all(&serde_json::to_vec(&job)?);
    drop(stdin);
    let output = child.wait_with_output().context("wait for sudo")?;
    if !output.status.success() {
        bail!("as root: {}; {NEEDS_ROOT}", output.status);
    }
    serde_json::from_slice(&output.stdout).context("read the answer of the root part")
}

const NEEDS_ROOT: &str = "this part needs root: run it as root or where sudo works, or take \
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

//! Which release of the jailer is installed.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use jail_cmd::JailerVersion;

use crate::error::{ErrorKind, Failure, Result};

/// Asks `jailer --version`.
pub(crate) fn ask(jailer_bin: &Path) -> Result<JailerVersion> {
    let operation = "ask for the jailer's release";
    let (status, stdout) = run(jailer_bin).map_err(|error| {
        Failure::new(ErrorKind::Spawn, operation)
            .path(jailer_bin)
            .source_of(error)
            .hinted("install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`")
    })?;
    stdout.parse().map_err(|error: jail_cmd::Error| {
        Failure::new(ErrorKind::Spawn, operation)
            .path(jailer_bin)
            .because(format!("`--version` ended with {status} and printed {stdout:?}"))
            .source_of(error)
            .hinted("is this the official jailer?")
    })
}

/// How it ended and what it printed. [`Command::output`] panics where its pipes cannot be read.
fn run(jailer_bin: &Path) -> io::Result<(ExitStatus, String)> {
    let mut child = Command::new(jailer_bin)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let mut printed = Vec::new();
    let read = child.stdout.take().map_or(Ok(0), |mut stdout| stdout.read_to_end(&mut printed));
    // It is reaped whatever was read: with its pipe gone it comes to its end.
    let status = child.wait()?;
    read?;
    Ok((status, String::from_utf8_lossy(&printed).into_owned()))
}

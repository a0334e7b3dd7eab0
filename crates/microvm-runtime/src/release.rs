//! Which release of the jailer is installed.

use std::path::Path;
use std::process::{Command, Stdio};

use jail_cmd::JailerVersion;

use crate::error::{ErrorKind, Failure, Result};

/// Asks `jailer --version`.
pub(crate) fn ask(jailer_bin: &Path) -> Result<JailerVersion> {
    let operation = "ask for the jailer's release";
    let output = Command::new(jailer_bin)
        .arg("--version")
        .env_clear()
        .stdin(Stdio::null())
        .output()
        .map_err(|error| {
            Failure::new(ErrorKind::Spawn, operation)
                .path(jailer_bin)
                .source_of(error)
                .hinted("install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`")
        })?;
    let stdout = String::from_utf8_lossy(&output.stdout);
    stdout.parse().map_err(|error: jail_cmd::Error| {
        Failure::new(ErrorKind::Spawn, operation)
            .path(jailer_bin)
            .because(format!("`--version` ended with {} and printed {stdout:?}", output.status))
            .source_of(error)
            .hinted("is this the official jailer?")
    })
}

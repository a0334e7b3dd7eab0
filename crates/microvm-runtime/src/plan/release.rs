//! The installed jailer and the jailer's release.

use std::path::Path;
use std::time::Duration;

use jail_cmd::JailerVersion;
use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::error::{ErrorKind, Failure, Result};
use crate::plan::host_file::Program;
use crate::vmm::output;

/// The jailer that starts a VM: the very file, and its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownJailer {
    pub(crate) program: Program,
    pub(crate) release: JailerVersion,
}

/// The time limit for `jailer --version`.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes that are read of what the jailer prints.
const MOST: usize = 4 << 10;

impl KnownJailer {
    /// Finds the jailer and runs `jailer --version`, unless the file is the `known` jailer.
    pub(crate) fn find(jailer_bin: &Path, known: Option<&Self>) -> Result<Self> {
        let program = Program::find("jailer", jailer_bin).map_err(|failure| {
            let installed =
                "Install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`.";
            if failure.kind() == ErrorKind::NotFound { failure.hinted(installed) } else { failure }
        })?;
        match known {
            Some(known) if known.program == program => Ok(known.clone()),
            _ => Ok(Self { release: ask(&program)?, program }),
        }
    }
}

fn ask(jailer: &Program) -> Result<JailerVersion> {
    let path = jailer.path().as_path();
    let printed = output(path, &["--version"], MOST, Deadline::after(PATIENCE))?;
    // Judged by its output alone: somebody else may have seen how it ended.
    let printed = String::from_utf8_lossy(&printed);
    printed.parse().map_err(|error: jail_cmd::Error| {
        let start: String = printed.lines().next().unwrap_or_default().chars().take(80).collect();
        Failure::new(ErrorKind::Spawn, "ask for the jailer's release")
            .path(path)
            .because(format!("`--version` printed {start:?}: {}", error.reason()))
            .hinted("Name Firecracker's official jailer in `JailerConfig::jailer_bin`.")
    })
}

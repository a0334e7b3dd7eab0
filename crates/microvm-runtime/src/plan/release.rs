//! The releases of the installed jailer and of a VM's Firecracker.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use jail_cmd::JailerVersion;
use serde::{Deserialize, Serialize};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::host_file::Program;
use crate::vmm::output;

/// A program of the Firecracker project: the very file, and its release.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KnownProgram {
    pub(crate) program: Program,
    pub(crate) release: JailerVersion,
}

/// The time limit for `--version`.
const VERSION_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes that are read of the output of `--version`.
const MOST: usize = 4 << 10;

/// Programs that are remembered.
const PROGRAMS: usize = 16;

/// The programs whose release was asked, each file once.
#[derive(Debug, Default)]
pub(crate) struct Releases(Mutex<Vec<KnownProgram>>);

impl Releases {
    /// Finds the jailer and runs `jailer --version`, unless the file is known.
    pub(crate) fn jailer(&self, jailer_bin: &Path) -> Result<KnownProgram> {
        let program = Program::find("jailer", jailer_bin).map_err(|failure| {
            let installed =
                "Install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`.";
            if failure.kind() == ErrorKind::NotFound { failure.hinted(installed) } else { failure }
        })?;
        let release = self.of(
            &program,
            "ask for the jailer's release",
            "Name Firecracker's official jailer in `JailerConfig::jailer_bin`.",
        )?;
        Ok(KnownProgram { program, release })
    }

    /// Runs `firecracker --version`, unless the file is known.
    pub(crate) fn firecracker(&self, exec_file: &Program) -> Result<JailerVersion> {
        self.of(
            exec_file,
            "ask for Firecracker's release",
            "The spec has options that not every release has: name an official Firecracker as the exec file.",
        )
    }

    fn of(&self, program: &Program, operation: &str, hint: &str) -> Result<JailerVersion> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.iter().find(|known| known.program == *program) {
            return Ok(known.release);
        }
        let release = ask(program, operation, hint)?;
        if known.len() == PROGRAMS {
            known.remove(0);
        }
        known.push(KnownProgram { program: program.clone(), release });
        Ok(release)
    }
}

fn ask(program: &Program, operation: &str, hint: &str) -> Result<JailerVersion> {
    let path = program.path().as_path();
    let printed = output(path, &["--version"], MOST, Deadline::after(VERSION_TIMEOUT))?;
    // Judged by its output alone: somebody else may have seen how it ended.
    let printed = String::from_utf8_lossy(&printed);
    printed.parse().map_err(|error: jail_cmd::Error| {
        let start: String = printed.lines().next().unwrap_or_default().chars().take(80).collect();
        Error::new(ErrorKind::Spawn, operation)
            .path(path)
            .because(format!("`--version` printed {start:?}: {}", error.reason()))
            .hinted(hint)
    })
}

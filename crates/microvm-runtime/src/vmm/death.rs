//! The early death of a VMM, before the VM was ready.

use std::error::Error;
use std::fmt;

use super::diagnose::diagnose;
use super::diagnosis::Diagnosis;
use super::status::ExitStatus;
use crate::text::escaped;

/// Bytes of the message.
const MESSAGE: usize = 512;

/// The output that an exited VMM has left.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Output {
    /// Of the jailer and of Firecracker.
    pub(super) log: String,
    /// Of the guest, and of a Firecracker that had no log yet.
    pub(super) console: String,
}

/// The early death of the jailer or of the VMM: status, output and diagnosis.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlyDeath {
    status: ExitStatus,
    output: Output,
    message: Option<String>,
    diagnosis: Diagnosis,
}

impl EarlyDeath {
    pub(super) fn new(status: ExitStatus, output: Output) -> Self {
        let (diagnosis, message) = diagnose(status, &output.log, &output.console);
        let message = message.map(|message| escaped(message, MESSAGE));
        Self { status, output, message, diagnosis }
    }

    /// Returns the exit status.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Returns the tail of the guest's console.
    #[must_use]
    pub fn console_tail(&self) -> &str {
        &self.output.console
    }

    /// Returns the tail of the VM's log: what the jailer and Firecracker logged, and printed on stderr.
    #[must_use]
    pub fn log_tail(&self) -> &str {
        &self.output.log
    }

    /// Returns the line that gives the reason, found in the log, or else on the console; escaped, and cut
    /// after 512 bytes.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// Returns the meaning of status and output.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        self.diagnosis
    }
}

impl fmt::Display for EarlyDeath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it ended with {} before it was ready", self.status)?;
        match &self.message {
            Some(message) => write!(f, ": {message}"),
            None => Ok(()),
        }
    }
}

impl Error for EarlyDeath {}

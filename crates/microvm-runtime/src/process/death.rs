//! A VMM that ended before it was ready.

use std::error::Error;
use std::fmt;

use super::diagnosis::{Diagnosis, diagnose};
use super::status::ExitStatus;
use crate::error::{ErrorKind, Failure};

/// How the jailer or the VMM ended before it was ready, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlyDeath {
    status: ExitStatus,
    stdout_tail: String,
    stderr_tail: String,
    message: Option<String>,
    diagnosis: Diagnosis,
}

impl EarlyDeath {
    pub(super) fn new(status: ExitStatus, (stdout_tail, stderr_tail): (String, String)) -> Self {
        let (diagnosis, message) = diagnose(status, &stdout_tail, &stderr_tail);
        Self { status, stdout_tail, stderr_tail, message, diagnosis }
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// The tail of its stdout.
    #[must_use]
    pub fn stdout_tail(&self) -> &str {
        &self.stdout_tail
    }

    /// The tail of its stderr.
    #[must_use]
    pub fn stderr_tail(&self) -> &str {
        &self.stderr_tail
    }

    /// The line that tells why, found in either tail.
    #[must_use]
    pub fn message(&self) -> Option<&str> {
        self.message.as_deref()
    }

    /// What that means.
    #[must_use]
    pub fn diagnosis(&self) -> Diagnosis {
        self.diagnosis
    }

    pub(super) fn into_failure(self) -> Failure {
        let failure = Failure::new(ErrorKind::EarlyDeath, "start the VM");
        match self.diagnosis.hint() {
            Some(hint) => failure.hinted(hint),
            None => failure,
        }
        .source_of(self)
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

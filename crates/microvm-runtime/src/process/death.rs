//! A VMM that ended before it was ready.

use std::error::Error;
use std::fmt;

use super::diagnosis::{Diagnosis, diagnose};
use super::status::ExitStatus;
use super::streams::Words;
use crate::error::{ErrorKind, Failure};
use crate::text::escaped;

/// Bytes of the message.
const MESSAGE: usize = 512;

/// How the jailer or the VMM ended before it was ready, in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct EarlyDeath {
    status: ExitStatus,
    words: Words,
    message: Option<String>,
    diagnosis: Diagnosis,
}

impl EarlyDeath {
    pub(super) fn new(status: ExitStatus, words: Words) -> Self {
        let (diagnosis, message) = diagnose(status, &words.log, &words.console);
        let message = message.map(|message| escaped(message, MESSAGE));
        Self { status, words, message, diagnosis }
    }

    /// How it ended.
    #[must_use]
    pub fn status(&self) -> ExitStatus {
        self.status
    }

    /// Returns the tail of the guest's console.
    #[must_use]
    pub fn console_tail(&self) -> &str {
        &self.words.console
    }

    /// Returns the tail of the VM's log: what the jailer and Firecracker logged, and printed on stderr.
    #[must_use]
    pub fn log_tail(&self) -> &str {
        &self.words.log
    }

    /// Returns the line that gives the reason, found in the log, or else on the console; escaped, and cut
    /// after 512 bytes.
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

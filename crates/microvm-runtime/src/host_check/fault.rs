//! [`Fault`]: a condition of the host under which a verb cannot work.

use crate::error::{Error, ErrorKind};

/// A failed check: the finding and the remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) kind: ErrorKind,
    /// The finding, as a fragment of a sentence.
    pub(super) found: String,
    /// The remedy, as a sentence.
    pub(super) fix: String,
}

impl Fault {
    pub(super) fn new(kind: ErrorKind, found: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { kind, found: found.into(), fix: fix.into() }
    }

    /// The error of a verb that cannot work because of this.
    pub(super) fn into_error(self, check: &str) -> Error {
        Error::new(self.kind, format!("pass the host check {check:?}"))
            .because(self.found)
            .hinted(self.fix)
    }
}

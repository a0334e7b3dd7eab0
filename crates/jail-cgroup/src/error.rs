//! The one error of this crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::Limit;

/// This crate's results.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Something that did not work: the operation, the path, why, and what to do.
///
/// Printed, it is a fragment that fits after "failed to"; the kernel's own word is its [`source`](StdError::source).
#[derive(Debug)]
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    operation: Cow<'static, str>,
    path: Option<PathBuf>,
    limit: Option<Limit>,
    reason: Option<Cow<'static, str>>,
    hint: Option<Cow<'static, str>>,
    source: Option<io::Error>,
}

/// What kind of failure it was, to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A limit, a name or a list that is wrong on every host.
    InvalidInput,
    /// A limit that this version of control groups, or this host, does not have.
    Unsupported,
    /// The process or the leaf is gone, or never was.
    NotFound,
    /// Processes are in the way.
    Busy,
    /// The leaf carries another owner's mark, or none.
    Foreign,
    /// Not allowed: no privilege, a read-only mount, or a group that belongs to someone else.
    Privilege,
    /// The kernel did not take, or did not keep, a value.
    Refused,
    /// A process is in the leaf for some controllers and elsewhere for others.
    Partial,
    /// It did not happen in time.
    Timeout,
    /// A mount, a file or its text is not what a kernel shows.
    Unexpected,
    /// Any other failure of a system call.
    Kernel,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>) -> Self {
        let operation = operation.into();
        Self(Box::new(Inner {
            kind,
            operation,
            path: None,
            limit: None,
            reason: None,
            hint: None,
            source: None,
        }))
    }

    /// A system call that failed at `path`.
    pub(crate) fn call(operation: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        let (kind, hint) = match errno {
            Errno::ACCESS | Errno::PERM => (
                ErrorKind::Privilege,
                Some("run as root, or as the user this part of the hierarchy is delegated to"),
            ),
            Errno::ROFS => {
                (ErrorKind::Privilege, Some("mount the hierarchy read-write, or choose another"))
            }
            Errno::BUSY => (ErrorKind::Busy, None),
            Errno::NOENT | Errno::NODEV | Errno::SRCH => (ErrorKind::NotFound, None),
            _ => (ErrorKind::Kernel, None),
        };
        let mut error = Self::new(kind, operation).path(path);
        error.0.hint = hint.map(Cow::Borrowed);
        error.0.source = Some(errno.into());
        error
    }

    pub(crate) fn invalid(limit: Limit, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, "accept the limits").limit_is(limit).because(reason)
    }

    pub(crate) fn path(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    pub(crate) fn kind_is(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn limit_is(mut self, limit: Limit) -> Self {
        self.0.limit = Some(limit);
        self
    }

    pub(crate) fn because(mut self, reason: impl Into<Cow<'static, str>>) -> Self {
        self.0.reason = Some(reason.into());
        self
    }

    pub(crate) fn hinted(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    /// What kind of failure it was.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was being done, such as `write` or `make the leaf`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The file or directory it was about, where it was about one.
    #[must_use]
    pub fn at(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// The limit it was about, where it was about one.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.0.limit
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the reason, if the kernel's answer is not all of it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    pub(crate) fn errno(&self) -> Option<Errno> {
        self.0.source.as_ref().and_then(Errno::from_io_error)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { operation, path, limit, reason, hint, .. } = &*self.0;
        f.write_str(operation)?;
        if let Some(path) = path {
            write!(f, " {}", path.display())?;
        }
        let mut colon = ": ";
        if let Some(limit) = limit {
            write!(f, "{colon}{limit}")?;
            colon = " ";
        }
        if let Some(reason) = reason {
            write!(f, "{colon}{reason}")?;
        }
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_its_own_layer_only() {
        let error = Error::call("write", "/sys/fs/cgroup/x/pids.max", Errno::INVAL)
            .limit_is(Limit::PidsMax)
            .because("\"-1\" was not taken")
            .hinted("ask for 1 or more");
        assert_eq!(
            error.to_string(),
            "write /sys/fs/cgroup/x/pids.max: pids_max \"-1\" was not taken; ask for 1 or more"
        );
        assert!(error.source().is_some_and(|source| source.to_string().contains("os error 22")));
        assert_eq!(error.errno(), Some(Errno::INVAL));
        assert_eq!(error.limit(), Some(Limit::PidsMax));
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}

//! The error type of this crate.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::Limit;
use crate::sys::Errno;

/// Results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failed operation, with path, cause and hint.
///
/// The text completes "failed to …". `{}` prints this error alone, `{:#}` with the causes
/// ([`source`](StdError::source)).
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

/// Kind of an [`Error`], to match on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A limit, a name or a list is invalid on every host.
    InvalidInput,
    /// The host lacks a limit, a controller or a hierarchy.
    Unsupported,
    /// The process or the leaf does not exist.
    NotFound,
    /// Processes, or another creator, are in the way.
    Busy,
    /// The leaf carries another owner's mark, or none.
    Foreign,
    /// The leaf, or a group above the leaf, is frozen.
    Frozen,
    /// A privilege is missing, the mount is read-only, or the group belongs to another user.
    Privilege,
    /// The kernel refused a value, or did not keep the value.
    Refused,
    /// A process is in the leaf for some controllers and elsewhere for others.
    Partial,
    /// The time is over.
    Timeout,
    /// A mount, a file or its text is not what a kernel shows.
    Unexpected,
    /// Any other failed system call.
    Kernel,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidInput => "invalid input",
            Self::Unsupported => "unsupported",
            Self::NotFound => "not found",
            Self::Busy => "busy",
            Self::Foreign => "foreign",
            Self::Frozen => "frozen",
            Self::Privilege => "privilege",
            Self::Refused => "refused",
            Self::Partial => "partial",
            Self::Timeout => "timeout",
            Self::Unexpected => "unexpected",
            Self::Kernel => "kernel",
        })
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: impl Into<Cow<'static, str>>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: operation.into(),
            path: None,
            limit: None,
            reason: None,
            hint: None,
            source: None,
        }))
    }

    /// Builds the error of a system call that failed at `path`.
    pub(crate) fn call(operation: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        let (kind, hint) = match errno {
            Errno::ACCESS | Errno::PERM => (
                ErrorKind::Privilege,
                Some(
                    "Run as root, or as the user to whom this part of the hierarchy is delegated.",
                ),
            ),
            Errno::ROFS => {
                (ErrorKind::Privilege, Some("Mount the hierarchy read-write, or choose another."))
            }
            Errno::BUSY => (ErrorKind::Busy, None),
            Errno::NOENT | Errno::NODEV | Errno::SRCH => (ErrorKind::NotFound, None),
            Errno::NOSYS => (
                ErrorKind::Unsupported,
                Some(
                    "Use Linux 5.6 or later, and allow openat2 and pidfd_open in the seccomp filter.",
                ),
            ),
            Errno::MFILE => (ErrorKind::Kernel, Some("Raise RLIMIT_NOFILE.")),
            _ => (ErrorKind::Kernel, None),
        };
        let mut error = Self::new(kind, operation).at(path);
        error.0.hint = hint.map(Cow::Borrowed);
        error.0.source = Some(errno.into());
        error
    }

    pub(crate) fn invalid(limit: Limit, reason: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, "accept the limits").of_limit(limit).because(reason)
    }

    pub(crate) fn at(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = Some(path.into());
        self
    }

    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    pub(crate) fn of_limit(mut self, limit: Limit) -> Self {
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

    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the operation that failed, such as `write` or `make the leaf`.
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// Returns the file or directory of the operation, if there is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// Returns the limit of the operation, if there is one.
    #[must_use]
    pub fn limit(&self) -> Option<Limit> {
        self.0.limit
    }

    /// Returns a suggestion for the operator: full sentences.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// Returns the reason, if the cause alone does not explain the failure.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.reason.as_deref()
    }

    pub(crate) fn errno(&self) -> Option<Errno> {
        self.0.source.as_ref().and_then(Errno::from_io_error)
    }

    /// Returns true if the system call failed because the process, the group or the file no longer exists.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::SRCH))
    }
}

/// `<operation> <path>: <limit> <reason>. <hint>`; with `#` the cause before the hint.
impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { operation, path, limit, reason, hint, source, .. } = &*self.0;
        f.write_str(operation)?;
        if let Some(path) = path {
            write!(f, " {}", path.display())?;
        }
        let mut separator = ": ";
        if let Some(limit) = limit {
            write!(f, "{separator}{limit}")?;
            separator = " ";
        }
        if let Some(reason) = reason {
            write!(f, "{separator}{reason}")?;
        }
        if let (true, Some(source)) = (f.alternate(), source) {
            write!(f, ": {source}")?;
        }
        if let Some(hint) = hint {
            write!(f, ". {hint}")?;
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
    fn errors_print_one_layer_or_all() {
        let error = Error::call("write", "/sys/fs/cgroup/x/pids.max", Errno::INVAL)
            .of_limit(Limit::PidsMax)
            .because("of \"-1\" was refused")
            .hinted("Ask for 1 or more.");
        assert_eq!(
            error.to_string(),
            "write /sys/fs/cgroup/x/pids.max: pids_max of \"-1\" was refused. Ask for 1 or more."
        );
        assert_eq!(
            format!("{error:#}"),
            "write /sys/fs/cgroup/x/pids.max: pids_max of \"-1\" was refused: \
             Invalid argument (os error 22). Ask for 1 or more."
        );
        assert!(error.source().is_some_and(|source| source.to_string().contains("os error 22")));
        assert_eq!(error.limit(), Some(Limit::PidsMax));
    }

    #[test]
    fn only_missing_privileges_suggest_root() {
        for errno in [Errno::PERM, Errno::ACCESS, Errno::ROFS, Errno::MFILE, Errno::NOMEM] {
            let root = matches!(errno, Errno::PERM | Errno::ACCESS);
            let error = Error::call("open", "/x", errno);
            assert_eq!(error.hint().is_some_and(|hint| hint.contains("root")), root, "{errno}");
        }
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<Error>();
    }
}

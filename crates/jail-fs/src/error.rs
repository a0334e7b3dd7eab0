//! One error for every verb.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use crate::sys::{self, Errno};
use crate::text::Escaped;

/// Result of every verb of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// The failure of a verb: operation, path, kind, cause, and a hint if something can be done about it.
///
/// `Display` completes "failed to …" with this layer; the kernel's answer is `source()`, and `{:#}` prints both. Bytes
/// that are not printable are escaped.
pub struct Error(Box<Inner>);

#[derive(Debug)]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    path: PathBuf,
    because: Option<String>,
    hint: Option<Cow<'static, str>>,
    mounts: Vec<PathBuf>,
    left_behind: Vec<Error>,
    source: Option<io::Error>,
}

/// The kind of an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, path or owner was refused; nothing was touched.
    InvalidInput,
    /// The file or directory does not exist.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// An untrusted user can change a directory, link or file, or the inode is of the wrong kind.
    Untrusted,
    /// The name leads to another inode than the expected one.
    Replaced,
    /// Another lease is held, another tree uses the file, or processes keep changing the tree.
    Busy,
    /// Something is mounted there; [`Error::mounts`] lists where.
    Mounted,
    /// Source and destination must be on one filesystem, and are not.
    CrossDevice,
    /// The destination's filesystem or the quota is full.
    NoSpace,
    /// A limit of this process or of the system is too low, such as `RLIMIT_FSIZE` or `RLIMIT_NOFILE`.
    Limit,
    /// A privilege is missing, or the file is immutable.
    Privilege,
    /// The kernel or the filesystem lacks the operation.
    Unsupported,
    /// The source changed during the copy.
    SourceChanged,
    /// The caller's progress callback cancelled the copy.
    Cancelled,
    /// Any other answer of the kernel; see `source()`.
    Io,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidInput => "invalid input",
            Self::NotFound => "not found",
            Self::AlreadyExists => "already exists",
            Self::Untrusted => "untrusted",
            Self::Replaced => "replaced",
            Self::Busy => "busy",
            Self::Mounted => "mounted",
            Self::CrossDevice => "cross device",
            Self::NoSpace => "no space",
            Self::Limit => "limit",
            Self::Privilege => "privilege",
            Self::Unsupported => "unsupported",
            Self::SourceChanged => "source changed",
            Self::Cancelled => "cancelled",
            Self::Io => "io",
        })
    }
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, operation: &'static str, path: impl Into<PathBuf>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation,
            path: path.into(),
            because: None,
            hint: None,
            mounts: Vec::new(),
            left_behind: Vec::new(),
            source: None,
        }))
    }

    /// The kernel refused `operation` on `path`.
    pub(crate) fn os(operation: &'static str, path: impl Into<PathBuf>, errno: Errno) -> Self {
        let (kind, hint) = judge(errno);
        let mut error = Self::new(kind, operation, path);
        error.0.hint = hint;
        error.0.source = Some(errno.into());
        error
    }

    /// The kernel refused `operation` on `name` in `dir`.
    pub(crate) fn at(
        operation: &'static str,
        dir: impl AsFd,
        name: impl AsRef<OsStr>,
        errno: Errno,
    ) -> Self {
        Self::os(operation, sys::path_of(dir).join(name.as_ref()), errno)
    }

    pub(crate) fn because(mut self, because: impl Into<String>) -> Self {
        self.0.because = Some(because.into());
        self
    }

    pub(crate) fn hinted(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.0.hint = Some(hint.into());
        self
    }

    pub(crate) fn over_mounts(mut self, mounts: Vec<PathBuf>) -> Self {
        let list: Vec<_> = mounts.iter().map(|mount| Escaped(mount).to_string()).collect();
        self.0.kind = ErrorKind::Mounted;
        self.0.mounts = mounts;
        self.because(format!("mounted in it: {}", list.join(", ")))
            .hinted("Unmount these, then try again.")
    }

    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// The same failure, told of another path.
    pub(crate) fn on(mut self, path: impl Into<PathBuf>) -> Self {
        self.0.path = path.into();
        self
    }

    /// Adds the failure of a clean-up that this error made necessary.
    pub(crate) fn after(mut self, cleanup: Result<()>) -> Self {
        self.0.left_behind.extend(cleanup.err());
        self
    }

    /// Returns the kind of failure.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the operation that failed, such as `create directory`.
    #[must_use]
    pub fn operation(&self) -> &str {
        self.0.operation
    }

    /// Returns the path on the host that the operation failed on.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// Returns the mount points in the way, for [`ErrorKind::Mounted`].
    #[must_use]
    pub fn mounts(&self) -> &[PathBuf] {
        &self.0.mounts
    }

    /// Returns the failures of the clean-up after this failure: each names a path that was left behind.
    #[must_use]
    pub fn left_behind(&self) -> &[Self] {
        &self.0.left_behind
    }

    /// Returns the reason, if the kernel's answer does not contain all.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.because.as_deref()
    }

    /// Returns a remedy, as a full sentence.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let inner = &self.0;
        write!(f, "{} {}", inner.operation, Escaped(&inner.path))?;
        if let Some(because) = &inner.because {
            write!(f, ": {because}")?;
        }
        if let (true, Some(source)) = (f.alternate(), &inner.source) {
            write!(f, ": {source}")?;
        }
        for left in &inner.left_behind {
            write!(f, "; left behind {}: failed to {left:#}", Escaped(left.path()))?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| source as _)
    }
}

fn judge(errno: Errno) -> (ErrorKind, Option<Cow<'static, str>>) {
    let (kind, hint) = match errno {
        Errno::ENOENT => (ErrorKind::NotFound, None),
        Errno::EEXIST => (ErrorKind::AlreadyExists, None),
        Errno::ELOOP => (
            ErrorKind::Untrusted,
            Some("A symbolic link is never followed here; name what the link leads to."),
        ),
        Errno::ENOTDIR => (ErrorKind::Untrusted, Some("Each component must be a directory.")),
        Errno::EXDEV => (ErrorKind::CrossDevice, None),
        Errno::EBUSY | Errno::ETXTBSY | Errno::EAGAIN => (ErrorKind::Busy, None),
        Errno::ENOSPC => (
            ErrorKind::NoSpace,
            Some("Free space or inodes on the filesystem of this path (df, df -i)."),
        ),
        Errno::EDQUOT => {
            (ErrorKind::NoSpace, Some("Raise the disk quota on the filesystem of this path."))
        }
        Errno::EFBIG => (
            ErrorKind::Limit,
            Some("The file is larger than the filesystem or RLIMIT_FSIZE of this process allows."),
        ),
        Errno::EMFILE => return (ErrorKind::Limit, Some(too_many_descriptors())),
        Errno::ENFILE => (
            ErrorKind::Limit,
            Some("The whole system has no descriptor left; raise /proc/sys/fs/file-max."),
        ),
        Errno::EACCES | Errno::EPERM => (ErrorKind::Privilege, Some("Run as root.")),
        Errno::EROFS => (
            ErrorKind::Unsupported,
            Some("The filesystem is mounted read-only; remount it rw or choose another."),
        ),
        Errno::ENOSYS => (
            ErrorKind::Unsupported,
            Some("The kernel is older than 5.8, or a seccomp filter refuses the system call."),
        ),
        Errno::EOPNOTSUPP | Errno::EINVAL => (ErrorKind::Unsupported, None),
        Errno::ENAMETOOLONG => (
            ErrorKind::InvalidInput,
            Some("A name may have 255 bytes and a path 4095; choose shorter ones."),
        ),
        _ => (ErrorKind::Io, None),
    };
    (kind, hint.map(Cow::Borrowed))
}

fn too_many_descriptors() -> Cow<'static, str> {
    match sys::open_files_limit() {
        Some(limit) => {
            format!("This process has {limit} descriptors open; raise its RLIMIT_NOFILE.").into()
        }
        None => "Raise RLIMIT_NOFILE.".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn an_error_completes_failed_to() {
        let error = Error::os("create directory", "/srv/x", Errno::EACCES);
        assert_eq!(error.to_string(), "create directory /srv/x");
        assert_eq!(error.source().unwrap().to_string(), io::Error::from(Errno::EACCES).to_string());
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Privilege, Some("Run as root.")));
        let error = error.because("no luck");
        assert_eq!(error.to_string(), "create directory /srv/x: no luck");
        assert_eq!(
            format!("{error:#}"),
            "create directory /srv/x: no luck: Permission denied (os error 13)"
        );
    }

    #[test]
    fn failed_cleanup_joins_the_error() {
        let left = Error::os("remove", "/srv/x/disk", Errno::EROFS);
        let error = Error::new(ErrorKind::NoSpace, "copy", "/k").after(Err(left)).after(Ok(()));
        assert_eq!(error.left_behind().len(), 1);
        assert_eq!(
            error.to_string(),
            "copy /k; left behind /srv/x/disk: failed to remove /srv/x/disk: Read-only file system (os error 30)"
        );
    }

    #[test]
    fn limits_are_named() {
        let hint = |errno| Error::os("open", "/x", errno).hint().unwrap().to_owned();
        assert!(hint(Errno::EMFILE).contains("RLIMIT_NOFILE"));
        assert!(hint(Errno::ENFILE).contains("file-max"));
        assert!(hint(Errno::EFBIG).contains("RLIMIT_FSIZE"));
        assert!(hint(Errno::ENOSYS).contains("seccomp"));
    }

    #[test]
    fn an_error_travels() {
        fn travels<T: Send + Sync + 'static>() {}
        travels::<Error>();
    }
}

//! One error for every verb.

use std::ffi::OsStr;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use nix::errno::Errno;

use crate::text::Escaped;

/// Result of every verb of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What was tried, on which path, what kind of failure it was and what to do about it.
///
/// `Display` prints this layer only, a fragment that fits after "failed to"; the kernel's answer is `source()`.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub struct Error(Box<Inner>);

#[derive(Debug, thiserror::Error)]
#[error("{operation} {}{}", Escaped(.path), .because.as_ref().map(|it| format!(": {it}")).unwrap_or_default())]
struct Inner {
    kind: ErrorKind,
    operation: &'static str,
    path: PathBuf,
    because: Option<String>,
    hint: Option<&'static str>,
    mounts: Vec<PathBuf>,
    source: Option<io::Error>,
}

/// What kind of failure an [`Error`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A name, path or owner was refused; nothing was touched.
    InvalidInput,
    /// It is not there.
    NotFound,
    /// The name is taken.
    AlreadyExists,
    /// A directory, link or file can be changed by someone who must not, or is not of the kind it must be.
    Untrusted,
    /// The name leads to another inode than the one that was expected.
    Replaced,
    /// Someone else holds the lease, or keeps changing what is being worked on.
    Busy,
    /// Something is mounted there; [`Error::mounts`] lists where.
    Mounted,
    /// Source and destination must be on one filesystem, and are not.
    CrossDevice,
    /// The filesystem or the quota is full.
    NoSpace,
    /// The kernel wants a privilege that this process lacks.
    Privilege,
    /// The kernel or the filesystem cannot do it.
    Unsupported,
    /// The source was written to while it was copied.
    SourceChanged,
    /// The caller's progress callback said stop.
    Cancelled,
    /// Any other answer of the kernel; see `source()`.
    Io,
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
        Self::os(operation, locate(dir).join(name.as_ref()), errno)
    }

    pub(crate) fn because(mut self, because: impl Into<String>) -> Self {
        self.0.because = Some(because.into());
        self
    }

    pub(crate) fn hinted(mut self, hint: &'static str) -> Self {
        self.0.hint = Some(hint);
        self
    }

    pub(crate) fn over_mounts(mut self, mounts: Vec<PathBuf>) -> Self {
        let list: Vec<_> = mounts.iter().map(|mount| Escaped(mount).to_string()).collect();
        self.0.kind = ErrorKind::Mounted;
        self.0.mounts = mounts;
        self.because(format!("mounted in it: {}", list.join(", ")))
            .hinted("unmount what is listed, then try again")
    }

    pub(crate) fn of_kind(mut self, kind: ErrorKind) -> Self {
        self.0.kind = kind;
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was tried, such as `create directory`.
    #[must_use]
    pub fn operation(&self) -> &str {
        self.0.operation
    }

    /// The path it was tried on, as it is on the host.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0.path
    }

    /// The mount points that are in the way, for [`ErrorKind::Mounted`].
    #[must_use]
    pub fn mounts(&self) -> &[PathBuf] {
        &self.0.mounts
    }

    /// Returns the reason, if the kernel's answer is not all of it.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.0.because.as_deref()
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint
    }
}

fn judge(errno: Errno) -> (ErrorKind, Option<&'static str>) {
    match errno {
        Errno::ENOENT => (ErrorKind::NotFound, None),
        Errno::EEXIST => (ErrorKind::AlreadyExists, None),
        Errno::ELOOP => (
            ErrorKind::Untrusted,
            Some("a symbolic link is never followed here: name what it leads to"),
        ),
        Errno::ENOTDIR => (ErrorKind::Untrusted, Some("it must be a directory")),
        Errno::EXDEV => (ErrorKind::CrossDevice, None),
        Errno::EBUSY | Errno::ETXTBSY | Errno::EAGAIN => (ErrorKind::Busy, None),
        Errno::ENOSPC => (ErrorKind::NoSpace, Some("free space on this filesystem")),
        Errno::EDQUOT => (ErrorKind::NoSpace, Some("raise the disk quota")),
        Errno::EACCES | Errno::EPERM => (ErrorKind::Privilege, Some("run as root")),
        Errno::EROFS => (ErrorKind::Unsupported, Some("the filesystem is mounted read-only")),
        Errno::ENOSYS | Errno::EOPNOTSUPP | Errno::EINVAL => (ErrorKind::Unsupported, None),
        Errno::ENAMETOOLONG => (ErrorKind::InvalidInput, None),
        _ => (ErrorKind::Io, None),
    }
}

/// Where an open directory is on the host; for messages, so only on the way out (`readlink(/proc/self/fd/N)`).
pub(crate) fn locate(dir: impl AsFd) -> PathBuf {
    use std::os::fd::AsRawFd as _;
    let link = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
    nix::fcntl::readlink(link.as_str()).map_or_else(|_| PathBuf::new(), PathBuf::from)
}

/// rustix's error number as nix's.
pub(crate) fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

/// The number of an error of std's, which it has whenever it came from the kernel.
pub(crate) fn number(error: &io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn it_reads_after_failed_to_and_keeps_its_cause() {
        let error = Error::os("create directory", "/srv/x", Errno::EACCES);
        assert_eq!(error.to_string(), "create directory /srv/x");
        assert_eq!(error.source().unwrap().to_string(), io::Error::from(Errno::EACCES).to_string());
        assert_eq!((error.kind(), error.hint()), (ErrorKind::Privilege, Some("run as root")));
        let error = error.because("no luck");
        assert_eq!(error.to_string(), "create directory /srv/x: no luck");
    }

    #[test]
    fn it_travels() {
        fn travels<T: Send + Sync + 'static>() {}
        travels::<Error>();
    }
}

//! The one error of every verb: operation, path, cause and hint.

mod conversions;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::sys::Errno;
use crate::text::escaped;
use crate::vmm::EarlyDeath;

/// Result of every public verb of this crate.
pub type VmRuntimeResult<T> = std::result::Result<T, VmRuntimeError>;

/// Result inside the crate; `?` lifts it into [`VmRuntimeResult`].
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// Bytes of each part of a message, so that no text of a VM or a tenant floods a terminal.
const PART: usize = 1024;

/// Bytes of a path in a message: `PATH_MAX`, and as much again for escapes.
const PATH: usize = 8192;

/// Returned by every verb of this crate.
///
/// `Display` prints one complete line: `jailer error: failed to <operation> <path>: <cause>. <Hint>.` Nothing is left
/// for [`source`](StdError::source), so a report of the whole chain repeats nothing.
#[derive(Debug)]
#[non_exhaustive]
pub enum VmRuntimeError {
    /// A jail could not be planned, prepared, launched, stopped or removed.
    ///
    /// The payload derefs to its message as `str`, so code for the 0.4 API that expects a string (`msg.contains("…")`)
    /// compiles.
    Jailer(Error),
}

impl VmRuntimeError {
    fn inner(&self) -> &Inner {
        let Self::Jailer(error) = self;
        &error.0
    }

    /// Returns the kind of the failure, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.inner().kind
    }

    /// Returns the operation that failed: a lower-case fragment that fits after "failed to".
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.inner().operation
    }

    /// Returns the path of the failed operation, if any.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.inner().path.as_deref()
    }

    /// Returns the cause as printed: the reason and the kernel's answer.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.inner().cause.as_deref()
    }

    /// Returns advice as a full sentence, if there is any; also the advice of a cause in jail-fs, jail-cgroup or
    /// jail-cmd.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.inner().hint.as_deref()
    }

    /// Returns the end of the jailer or the VMM, for [`ErrorKind::EarlyDeath`].
    #[must_use]
    pub fn early_death(&self) -> Option<&EarlyDeath> {
        self.inner().find()
    }

    /// Returns the kernel's answer, if a system call failed.
    #[must_use]
    pub fn io_error(&self) -> Option<&io::Error> {
        self.inner().find()
    }

    /// Returns the failures of the clean-up that followed this failure; empty if all was cleaned up.
    #[must_use]
    pub fn cleanup_failures(&self) -> &[Self] {
        &self.inner().cleanup
    }
}

impl fmt::Display for VmRuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Jailer(error) = self;
        write!(f, "jailer error: {error}")
    }
}

impl StdError for VmRuntimeError {}

impl From<Error> for VmRuntimeError {
    fn from(error: Error) -> Self {
        Self::Jailer(error)
    }
}

/// The kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An id, path, uid, name or value was refused; nothing was touched.
    InvalidInput,
    /// A file that was asked for does not exist.
    NotFound,
    /// The jailer's release, the kernel or this host does not support the operation.
    Unsupported,
    /// A privilege is missing, such as `CAP_MKNOD`.
    Privilege,
    /// An unprivileged user can change the chroot base, an ancestor of the chroot base, or a source.
    Untrusted,
    /// The VM of this id still runs.
    Running,
    /// Another launcher holds this jail.
    Busy,
    /// Staging, owning or removing files failed.
    Filesystem,
    /// A control group could not be made, read, joined or removed.
    Cgroup,
    /// The jailer could not be started.
    Spawn,
    /// The jailer or the VMM ended before the VM was ready; see [`VmRuntimeError::early_death`].
    EarlyDeath,
    /// A process is not the expected VMM.
    Identity,
    /// A deadline passed.
    Timeout,
    /// Firecracker's API refused a request or did not answer as HTTP.
    Api,
    /// The guest or Firecracker refused a vsock connection, or did not answer as Firecracker does.
    Vsock,
    /// The record beside a jail cannot be read, or belongs to something else.
    Record,
    /// A mount inside the jail keeps the jail from being removed.
    Mounted,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::InvalidInput => "invalid input",
            Self::NotFound => "not found",
            Self::Unsupported => "unsupported",
            Self::Privilege => "privilege",
            Self::Untrusted => "untrusted",
            Self::Running => "running",
            Self::Busy => "busy",
            Self::Filesystem => "filesystem",
            Self::Cgroup => "cgroup",
            Self::Spawn => "spawn",
            Self::EarlyDeath => "early death",
            Self::Identity => "identity",
            Self::Timeout => "timeout",
            Self::Api => "API",
            Self::Record => "record",
            Self::Vsock => "vsock",
            Self::Mounted => "mounted",
        })
    }
}

/// The payload of [`VmRuntimeError`], and the accessors' source: operation, path, cause and hint.
///
/// `Display` prints all of them as one line, `failed to <operation> <path>: <cause>. <Hint>.` Text that a VM wrote is
/// escaped and cut. `Debug` prints the kind and the same line, for a `main` that returns an error.
pub struct Error(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: String,
    path: Option<PathBuf>,
    reason: Option<String>,
    hint: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    cleanup: Vec<VmRuntimeError>,
    /// The reason and the causes, as printed.
    cause: Option<String>,
    /// The whole line.
    message: String,
}

impl Error {
    /// A failure of `operation`, a lower-case fragment that fits after "failed to".
    pub(crate) fn new(kind: ErrorKind, operation: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: operation.into(),
            path: None,
            reason: None,
            hint: None,
            source: None,
            cleanup: Vec::new(),
            cause: None,
            message: String::new(),
        }))
        .rendered()
    }

    /// Input that was refused before anything was touched.
    pub(crate) fn invalid(operation: impl Into<String>, because: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, operation).because(because)
    }

    /// Sets the path of the operation.
    pub(crate) fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_owned());
        self.rendered()
    }

    /// Sets the reason, printed before the causes.
    pub(crate) fn because(mut self, because: impl Into<String>) -> Self {
        self.0.reason = Some(because.into());
        self.rendered()
    }

    /// Sets the advice. It is made a full sentence.
    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(sentence(hint.into()));
        self.rendered()
    }

    /// Sets the cause. Its hint counts unless this failure has its own.
    pub(crate) fn source_of(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        let mut source = source.into();
        // Callers look for the kernel's answer as `io::Error`, whose text also has the number.
        source = match source.downcast::<Errno>() {
            Ok(errno) => Box::new(io::Error::from(*errno)),
            Err(other) => other,
        };
        if self.0.hint.is_none() {
            self.0.hint = hint_of(&*source).map(|hint| sentence(hint.to_owned()));
        }
        self.0.source = Some(source);
        self.rendered()
    }

    /// Adds the result of the clean-up after this failure: a clean-up that fails is part of this failure, never in its
    /// place.
    pub(crate) fn and_cleanup<T>(mut self, cleanup: Result<T>) -> Self {
        if let Err(error) = cleanup {
            self.0.cleanup.push(error.into());
        }
        self.rendered()
    }

    fn cgroup_cause(self, error: jail_cgroup::Error) -> Self {
        let advice = match error.kind() {
            _ if error.hint().is_some() => None,
            jail_cgroup::ErrorKind::InvalidInput => Some("Correct this limit in the spec."),
            jail_cgroup::ErrorKind::Refused => {
                Some("Ask for a value that this host's kernel takes.")
            }
            jail_cgroup::ErrorKind::Unsupported => {
                Some("Leave this limit out, or ask for the other version of control groups.")
            }
            _ => None,
        };
        let failure = self.source_of(error);
        match advice {
            Some(advice) => failure.hinted(advice),
            None => failure,
        }
    }

    fn rendered(mut self) -> Self {
        let number = self.0.find::<io::Error>().and_then(io::Error::raw_os_error);
        let advice = number.map(Errno::from_raw_os_error).and_then(advice);
        if let Some((advice, always)) = advice {
            let replaces = |hint: &String| always && !hint.contains("RLIMIT_NOFILE");
            if self.0.hint.as_ref().is_none_or(replaces) {
                self.0.hint = Some(advice.to_owned());
            }
        }
        self.0.cause = None;
        let causes = self.causes();
        self.0.cause = (!causes.is_empty()).then(|| causes.join(": "));
        let mut message = format!("failed to {}", self.clause());
        for VmRuntimeError::Jailer(error) in &self.0.cleanup {
            message += "; and failed to ";
            message += &error.clause();
        }
        let hint = self.0.hint.as_deref();
        let hints = [hint].into_iter().chain(self.0.cleanup.iter().map(VmRuntimeError::hint));
        let mut printed = Vec::new();
        for hint in hints.flatten().filter(|hint| !hint.is_empty()) {
            if !printed.contains(&hint) {
                message += if message.ends_with(['.', '?', '!']) { " " } else { ". " };
                message += &escaped(hint, PART);
                printed.push(hint);
            }
        }
        self.0.message = message;
        self
    }

    /// The line without "failed to" and the hint.
    fn clause(&self) -> String {
        let mut clause = self.head();
        if let Some(cause) = &self.0.cause {
            clause += ": ";
            clause += cause;
        }
        clause
    }

    /// Operation and path. A path that the cause names stands there.
    fn head(&self) -> String {
        layer(
            &self.0.operation,
            self.0.path.as_deref().filter(|path| !self.cause_names(path)),
            None,
        )
    }

    /// Returns the text of one layer of the cause. If this error took its operation from the cause, the line begins with
    /// operation and path already, so that only the reason is returned.
    fn layer_of(&self, operation: &str, path: Option<&Path>, reason: Option<&str>) -> String {
        match operation == self.0.operation {
            true => escaped(reason.unwrap_or_default(), PART),
            false => layer(operation, path, reason),
        }
    }

    fn cause_names(&self, path: &Path) -> bool {
        let Some(source) = &self.0.source else { return false };
        if let Some(error) = source.downcast_ref::<jail_fs::Error>() {
            error.path() == path && error.operation() != self.0.operation
        } else if let Some(error) = source.downcast_ref::<jail_cgroup::Error>() {
            error.path() == Some(path) && error.operation() != self.0.operation
        } else {
            let inner = source.downcast_ref::<Self>().map(|error| &error.0);
            inner.is_some_and(|inner| inner.path.as_deref() == Some(path))
        }
    }

    /// The reason and each cause below, as printed.
    fn causes(&self) -> Vec<String> {
        let mut causes = Vec::new();
        causes.extend(self.0.reason.as_ref().map(|reason| escaped(reason, PART)));
        let mut next = self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static));
        while let Some(error) = next {
            if let Some(error) = error.downcast_ref::<Self>() {
                causes.push(error.clause());
                break;
            }
            causes.push(if let Some(error) = error.downcast_ref::<jail_fs::Error>() {
                self.layer_of(error.operation(), Some(error.path()), error.reason())
            } else if let Some(error) = error.downcast_ref::<jail_cgroup::Error>() {
                let limit = error.limit().map(|limit| limit.to_string());
                let reason = [limit.as_deref(), error.reason()].into_iter().flatten();
                let reason = reason.collect::<Vec<_>>().join(" ");
                let reason = Some(reason.as_str()).filter(|reason| !reason.is_empty());
                self.layer_of(error.operation(), error.path(), reason)
            } else {
                escaped(error.to_string(), PART)
            });
            next = error.source();
        }
        causes.retain(|cause| !cause.is_empty());
        causes
    }

    /// Returns the kind of the failure, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns advice as a full sentence, as [`VmRuntimeError::hint`].
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }
}

impl Inner {
    /// The first cause of type `T`.
    fn find<T: StdError + 'static>(&self) -> Option<&T> {
        let mut next = self.source.as_deref().map(|source| source as &(dyn StdError + 'static));
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            if let Some(error) = error.downcast_ref::<Error>() {
                return error.0.find();
            }
            next = error.source();
        }
        None
    }
}

/// One layer of a message: `<operation> <path>: <reason>`.
fn layer(operation: &str, path: Option<&Path>, reason: Option<&str>) -> String {
    let mut layer = escaped(operation, PART);
    if let Some(path) = path.filter(|path| !path.as_os_str().is_empty()) {
        layer += " ";
        layer += &escaped(path.as_os_str().as_encoded_bytes(), PATH);
    }
    if let Some(reason) = reason {
        layer += ": ";
        layer += &escaped(reason, PART);
    }
    layer
}

fn hint_of<'a>(source: &'a (dyn StdError + Send + Sync + 'static)) -> Option<&'a str> {
    if let Some(error) = source.downcast_ref::<jail_fs::Error>() {
        error.hint()
    } else if let Some(error) = source.downcast_ref::<jail_cgroup::Error>() {
        error.hint()
    } else if let Some(error) = source.downcast_ref::<jail_cmd::Error>() {
        Some(error.hint())
    } else {
        source.downcast_ref::<Error>()?.0.hint.as_deref()
    }
}

/// Advice on an answer of the kernel; `true` if it counts whatever the operation was.
fn advice(errno: Errno) -> Option<(&'static str, bool)> {
    match errno {
        Errno::MFILE => Some(("Raise RLIMIT_NOFILE: this process has no descriptor left.", true)),
        Errno::NFILE => {
            Some(("Raise the sysctl fs.file-max: the host has no descriptor left.", true))
        }
        Errno::NOENT => {
            Some(("Check that the path exists, with each directory on the way.", false))
        }
        Errno::ISDIR => Some(("Name a file, not a directory.", false)),
        Errno::NOMEM => Some(("Free memory, or raise the memory limit of this process.", false)),
        _ => None,
    }
}

/// Begins with a capital letter and ends with a full stop.
fn sentence(hint: String) -> String {
    let mut text = hint;
    if let Some(first) = text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    if !text.is_empty() && !text.ends_with(['.', '?', '!']) {
        text.push('.');
    }
    text
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl StdError for Error {}

impl Deref for Error {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.message
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_is_one_complete_line() {
        let error = VmRuntimeError::from(
            Error::new(ErrorKind::Filesystem, "stage the kernel from")
                .path("/k")
                .source_of(Errno::NOENT)
                .hinted("name a kernel that exists"),
        );
        assert_eq!(
            error.to_string(),
            "jailer error: failed to stage the kernel from /k: No such file or directory (os error 2). Name a kernel \
             that exists."
        );
        assert_eq!(error.path(), Some(Path::new("/k")));
        assert_eq!(error.hint(), Some("Name a kernel that exists."));
        assert_eq!(error.io_error().unwrap().raw_os_error(), Some(2));
        assert!(error.source().is_none(), "a report of the chain would repeat it");
        match &error {
            VmRuntimeError::Jailer(msg) => assert!(msg.contains("No such file"), "as a string"),
        }
    }

    #[test]
    fn a_causes_hint_surfaces() {
        let error = jail_fs::TrustedDir::open(Path::new("relative")).unwrap_err();
        let hint = error.hint().map(str::to_owned);
        let error = VmRuntimeError::from(Error::files("open the chroot base", error));
        assert_eq!(
            error.hint().map(str::to_lowercase),
            hint.map(|hint| sentence(hint).to_lowercase())
        );
        let outer =
            VmRuntimeError::from(Error::new(ErrorKind::Api, "do more").source_of(
                Error::new(ErrorKind::Api, "do less").because("no").hinted("run as root"),
            ));
        assert_eq!(outer.to_string(), "jailer error: failed to do more: do less: no. Run as root.");
        assert_eq!(outer.hint(), Some("Run as root."));
        let refused = jail_cmd::JailId::new("a_b").unwrap_err();
        let error = VmRuntimeError::from(Error::from(refused));
        assert_eq!(error.operation(), "accept the jail id \"a_b\"");
        assert!(error.hint().unwrap().starts_with("A jail id is"), "{error}");
    }

    #[test]
    fn a_path_is_printed_once() {
        let error = jail_fs::TrustedDir::open(Path::new("/no/such/base")).unwrap_err();
        let path = error.path().display().to_string();
        for error in [Error::from(error), {
            let error = jail_fs::TrustedDir::open(Path::new("/no/such/base")).unwrap_err();
            Error::files("open the chroot base", error)
        }] {
            assert_eq!(error.matches(&path).count(), 1, "{error}");
            assert_eq!(error.matches("os error 2").count(), 1, "{error}");
        }
    }

    #[test]
    fn hostile_text_is_escaped_and_cut() {
        let text = "\u{1b}]0;owned\u{7}\n".repeat(1 << 16);
        let error = Error::new(ErrorKind::Api, text.clone())
            .path(text.clone())
            .because(text.clone())
            .hinted(text.clone())
            .source_of(io::Error::other(text.clone()))
            .and_cleanup::<()>(Err(Error::invalid("x", text)));
        assert!(error.len() < 24 << 10, "{}", error.len());
        assert!(!error.chars().any(char::is_control), "{error}");
    }

    #[test]
    fn failed_cleanup_is_reported() {
        let error = Error::new(ErrorKind::Spawn, "start the jailer")
            .because("no memory")
            .and_cleanup(Ok(()))
            .and_cleanup::<()>(Err(Error::new(ErrorKind::Busy, "remove the jail").path("/j/vm")));
        assert_eq!(error.kind(), ErrorKind::Spawn);
        let error = VmRuntimeError::from(error);
        assert_eq!(error.cleanup_failures().len(), 1);
        assert_eq!(
            error.to_string(),
            "jailer error: failed to start the jailer: no memory; and failed to remove the jail /j/vm"
        );
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<VmRuntimeError>();
    }
}

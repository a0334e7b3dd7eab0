//! One error for every verb: what was tried, on which path, why it failed and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::ops::Deref;
use std::path::{Path, PathBuf};

use crate::process::EarlyDeath;

/// Result of every public verb of this crate.
pub type VmRuntimeResult<T> = std::result::Result<T, VmRuntimeError>;

/// Result inside the crate; `?` lifts it into [`VmRuntimeResult`].
pub(crate) type Result<T> = std::result::Result<T, Failure>;

/// The error of this crate.
///
/// `Display` prints `jailer error: <operation> <path>: <why>; <what to do>`; the cause below is `source()`.
#[derive(Debug)]
#[non_exhaustive]
pub enum VmRuntimeError {
    /// A jail could not be planned, prepared, launched, stopped or torn down.
    ///
    /// The payload derefs to the whole message as `str`, causes included, so that code which expects a string
    /// here (`msg.contains("…")`) goes on working.
    Jailer(Failure),
}

impl VmRuntimeError {
    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.failure().kind()
    }

    /// The failure itself: operation, path, hint.
    #[must_use]
    pub fn failure(&self) -> &Failure {
        let Self::Jailer(failure) = self;
        failure
    }
}

impl fmt::Display for VmRuntimeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "jailer error: {}", self.failure())
    }
}

// By hand, since the failure's own layer is already printed by `Display`: the next one is its cause.
impl StdError for VmRuntimeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.failure().source()
    }
}

impl From<Failure> for VmRuntimeError {
    fn from(failure: Failure) -> Self {
        Self::Jailer(failure)
    }
}

/// What kind of failure a [`VmRuntimeError`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An id, path, uid, name or value was refused; nothing was touched.
    InvalidInput,
    /// A file that was asked for is not there.
    NotFound,
    /// The jailer, its release, the kernel or this host cannot do what was asked.
    Unsupported,
    /// A privilege is missing, such as `CAP_MKNOD`.
    Privilege,
    /// The chroot base, one of its ancestors or a source can be changed by someone who must not.
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
    /// The jailer or the VMM ended before it was ready; see [`Failure::early_death`].
    EarlyDeath,
    /// A process is not the VMM it should be.
    Identity,
    /// A deadline passed.
    Timeout,
    /// Firecracker's API refused a request or did not answer as HTTP.
    Api,
    /// The record beside a jail cannot be read, or belongs to something else.
    Record,
    /// A mount inside the jail keeps it from being removed.
    Mounted,
}

/// A failure: operation, path, reason, hint, and its cause through `source()`.
///
/// `Debug` prints its kind and the whole message, causes included: it is what a `main` that returns an error shows.
pub struct Failure(Box<Inner>);

struct Inner {
    kind: ErrorKind,
    operation: String,
    path: Option<PathBuf>,
    because: Option<String>,
    hint: Option<String>,
    cleanup: Vec<Failure>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    /// The whole message with its causes, for `Deref`.
    message: String,
}

impl fmt::Debug for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.0.kind, self.0.message)
    }
}

impl Failure {
    /// A failure of `operation`, a lower-case fragment that fits after "failed to".
    pub(crate) fn new(kind: ErrorKind, operation: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            kind,
            operation: operation.into(),
            path: None,
            because: None,
            hint: None,
            cleanup: Vec::new(),
            source: None,
            message: String::new(),
        }))
        .rendered()
    }

    /// Input that was refused before anything was touched.
    pub(crate) fn invalid(operation: impl Into<String>, because: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, operation).because(because)
    }

    /// The path it was about.
    pub(crate) fn path(mut self, path: impl AsRef<Path>) -> Self {
        self.0.path = Some(path.as_ref().to_owned());
        self.rendered()
    }

    /// Why, where no cause says it.
    pub(crate) fn because(mut self, because: impl Into<String>) -> Self {
        self.0.because = Some(because.into());
        self.rendered()
    }

    /// What to do about it.
    pub(crate) fn hinted(mut self, hint: impl Into<String>) -> Self {
        self.0.hint = Some(hint.into());
        self.rendered()
    }

    /// The cause.
    pub(crate) fn source_of(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.source = Some(source.into());
        self.rendered()
    }

    /// The result of the clean-up after this failure: a clean-up that fails is part of this failure, never in its place.
    pub(crate) fn and_cleanup<T>(mut self, cleanup: Result<T>) -> Self {
        if let Err(failure) = cleanup {
            self.0.cleanup.push(failure);
        }
        self.rendered()
    }

    fn rendered(mut self) -> Self {
        let mut message = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            message.push_str(": ");
            message.push_str(&error.to_string());
            cause = error.source();
        }
        for failure in &self.0.cleanup {
            message.push_str("; and failed to ");
            message.push_str(failure);
        }
        self.0.message = message;
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What was tried: a lower-case fragment that fits after "failed to".
    #[must_use]
    pub fn operation(&self) -> &str {
        &self.0.operation
    }

    /// The path it was tried on, where there is one.
    #[must_use]
    pub fn at(&self) -> Option<&Path> {
        self.0.path.as_deref()
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    /// What else failed when the verb cleaned up after this failure; empty if all was cleaned up.
    #[must_use]
    pub fn cleanup_failures(&self) -> &[Failure] {
        &self.0.cleanup
    }

    /// How the jailer or the VMM died, where that is what happened.
    #[must_use]
    pub fn early_death(&self) -> Option<&EarlyDeath> {
        self.source()?.downcast_ref()
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.operation)?;
        if let Some(path) = &self.0.path {
            write!(f, " {}", path.display())?;
        }
        if let Some(because) = &self.0.because {
            write!(f, ": {because}")?;
        }
        if let Some(hint) = &self.0.hint {
            write!(f, "; {hint}")?;
        }
        for failure in &self.0.cleanup {
            write!(f, "; and failed to {failure}")?;
        }
        Ok(())
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

impl Deref for Failure {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.message
    }
}

impl From<jail_cmd::Error> for Failure {
    fn from(error: jail_cmd::Error) -> Self {
        let kind = match error.kind() {
            jail_cmd::ErrorKind::UnsupportedByRelease => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidInput,
        };
        // It tells its whole story in one line; there is no cause below it.
        let told = error.to_string();
        let told = told
            .strip_suffix(error.hint())
            .and_then(|told| told.strip_suffix("; "))
            .unwrap_or(&told);
        Self::new(kind, told).hinted(error.hint())
    }
}

impl From<jail_fs::Error> for Failure {
    fn from(error: jail_fs::Error) -> Self {
        Self::files("work on the jail's files", error)
    }
}

impl From<jail_cgroup::Error> for Failure {
    fn from(error: jail_cgroup::Error) -> Self {
        Self::cgroup("work on the VM's control group", error)
    }
}

impl Failure {
    /// A failure of `operation` whose cause is jail-fs's.
    pub(crate) fn files(operation: impl Into<String>, error: jail_fs::Error) -> Self {
        use jail_fs::ErrorKind as Fs;
        let kind = match error.kind() {
            Fs::InvalidInput => ErrorKind::InvalidInput,
            Fs::NotFound => ErrorKind::NotFound,
            Fs::Untrusted => ErrorKind::Untrusted,
            Fs::Busy => ErrorKind::Busy,
            Fs::Mounted => ErrorKind::Mounted,
            Fs::Privilege => ErrorKind::Privilege,
            Fs::Unsupported => ErrorKind::Unsupported,
            _ => ErrorKind::Filesystem,
        };
        let failure = Self::new(kind, operation).path(error.path());
        match error.hint() {
            Some(hint) => failure.hinted(hint),
            None => failure,
        }
        .source_of(error)
    }

    /// A failure of `operation` whose cause is jail-cgroup's.
    pub(crate) fn cgroup(operation: impl Into<String>, error: jail_cgroup::Error) -> Self {
        use jail_cgroup::ErrorKind as Cgroup;
        let kind = match error.kind() {
            Cgroup::InvalidInput => ErrorKind::InvalidInput,
            Cgroup::Unsupported => ErrorKind::Unsupported,
            Cgroup::Privilege => ErrorKind::Privilege,
            _ => ErrorKind::Cgroup,
        };
        Self::new(kind, operation).source_of(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_caller_reads_the_whole_story_as_a_string() {
        let error = VmRuntimeError::from(
            Failure::new(ErrorKind::Filesystem, "stage kernel")
                .path("/k")
                .source_of(std::io::Error::other("disk on fire"))
                .hinted("put it out"),
        );
        match &error {
            VmRuntimeError::Jailer(msg) => {
                assert!(msg.contains("stage kernel /k"));
                assert!(msg.contains("disk on fire"));
            }
        }
        assert_eq!(error.to_string(), "jailer error: stage kernel /k; put it out");
        assert_eq!(error.source().map(ToString::to_string).as_deref(), Some("disk on fire"));
        assert_eq!(error.kind(), ErrorKind::Filesystem);
    }

    #[test]
    fn failed_cleanup_is_told() {
        let failure = Failure::new(ErrorKind::Spawn, "start the jailer")
            .and_cleanup(Ok(()))
            .and_cleanup::<()>(Err(Failure::new(ErrorKind::Busy, "remove the jail").path("/j/vm")));
        assert_eq!(failure.kind(), ErrorKind::Spawn);
        assert_eq!(failure.cleanup_failures().len(), 1);
        assert!(
            failure.to_string().ends_with("; and failed to remove the jail /j/vm"),
            "{failure}"
        );
        assert!(failure.ends_with("; and failed to remove the jail /j/vm"), "{}", &*failure);
    }

    #[test]
    fn errors_cross_threads() {
        fn check<T: Send + Sync + 'static>() {}
        check::<VmRuntimeError>();
    }
}

//! Errors of the lower crates and of an early death, as errors of the facade.

use std::error::Error as _;
use std::path::Path;

use super::{Error, ErrorKind, VmRuntimeError};
use crate::vmm::EarlyDeath;

impl Error {
    /// Makes an error of `operation` from an error of jail-fs.
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
        let left = error.left_behind().iter().map(|left| {
            let reasons =
                [left.reason().map(str::to_owned), left.source().map(ToString::to_string)];
            let reasons = reasons.into_iter().flatten().collect::<Vec<_>>().join(": ");
            Self::new(ErrorKind::Filesystem, left.operation()).path(left.path()).because(reasons)
        });
        let left = left.collect::<Vec<_>>();
        let failure = Self::new(kind, operation).path(error.path()).source_of(error);
        left.into_iter().fold(failure, |failure, left| failure.and_cleanup::<()>(Err(left)))
    }

    /// Makes an error of `operation` from an error of jail-cgroup.
    pub(crate) fn cgroup(operation: impl Into<String>, error: jail_cgroup::Error) -> Self {
        use jail_cgroup::ErrorKind as Cgroup;
        let kind = match error.kind() {
            Cgroup::InvalidInput => ErrorKind::InvalidInput,
            Cgroup::Unsupported => ErrorKind::Unsupported,
            Cgroup::Privilege => ErrorKind::Privilege,
            _ => ErrorKind::Cgroup,
        };
        let failure = Self::new(kind, operation);
        match error.path().map(Path::to_owned) {
            Some(path) => failure.path(path),
            None => failure,
        }
        .cgroup_cause(error)
    }
}

impl From<EarlyDeath> for Error {
    fn from(death: EarlyDeath) -> Self {
        let failure = Self::new(ErrorKind::EarlyDeath, "start the VM");
        match death.diagnosis().hint() {
            Some(hint) => failure.hinted(hint),
            None => failure,
        }
        .source_of(death)
    }
}

impl From<VmRuntimeError> for Error {
    fn from(VmRuntimeError::Jailer(error): VmRuntimeError) -> Self {
        error
    }
}

impl From<jail_cmd::Error> for Error {
    fn from(error: jail_cmd::Error) -> Self {
        let kind = match error.kind() {
            jail_cmd::ErrorKind::UnsupportedByRelease => ErrorKind::Unsupported,
            _ => ErrorKind::InvalidInput,
        };
        // Printed it is `<operation>: <reason>; <hint>`.
        let printed = error.to_string();
        let operation = printed
            .strip_suffix(&format!(": {}; {}", error.reason(), error.hint()))
            .unwrap_or(&printed);
        Self::new(kind, operation).because(error.reason()).hinted(error.hint())
    }
}

impl From<jail_fs::Error> for Error {
    fn from(error: jail_fs::Error) -> Self {
        Self::files(error.operation().to_owned(), error)
    }
}

impl From<jail_cgroup::Error> for Error {
    fn from(error: jail_cgroup::Error) -> Self {
        Self::cgroup(error.operation().to_owned(), error)
    }
}

//! The messages between a launcher and the tracer: an order on stdin, lines of JSON on stdout.

use std::path::PathBuf;

use microvm_runtime::{JailSpec, JailerConfig, VmRuntimeError};
use serde::{Deserialize, Serialize};

/// The task of a launcher.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) role: Role,
    pub(crate) jailer_bin: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) cgroup_parent: String,
    pub(crate) spec: JailSpec,
    /// The directory of the VM's snapshot.
    pub(crate) snapshot: PathBuf,
    /// Kill the VM at the end, instead of asking the guest to shut down.
    pub(crate) kill: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Take the VM through all verbs.
    Life,
    /// Clear away what a launcher that was killed left, then the same.
    Recovery,
    /// Stop the remains of a killed launcher, then take the VM through all verbs in the same jail.
    Restart,
    /// Prepare jails, then take all through the verbs for many.
    Many(Many),
}

/// The number of jails in the base.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Many {
    /// Jails whose processes this crate would start in a control group.
    pub born_in_leaf: usize,
    /// Jails of the 0.4 API, whose processes the caller starts.
    pub by_caller: usize,
}

impl Order {
    pub(crate) fn config(&self) -> JailerConfig {
        JailerConfig {
            jailer_bin: self.jailer_bin.clone(),
            chroot_base: self.base.clone(),
            cgroup_parent: self.cgroup_parent.clone(),
            ..JailerConfig::default()
        }
    }
}

/// A line of a launcher's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    /// A phase begins.
    Begin(String),
    /// The phase failed, and is tried again.
    Failed(ErrorReport),
    /// The phase failed again: the launcher gives up.
    GaveUp(ErrorReport),
    /// All phases are through.
    Over,
}

/// An error, as reported to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ErrorReport {
    pub(crate) phase: String,
    pub(crate) kind: String,
    pub(crate) operation: String,
    pub(crate) path: Option<PathBuf>,
    pub(crate) cause: Option<String>,
    pub(crate) hint: Option<String>,
    /// The whole line.
    pub(crate) whole: String,
}

impl ErrorReport {
    pub(crate) fn new(phase: &str, error: &VmRuntimeError) -> Self {
        Self {
            phase: phase.to_owned(),
            kind: format!("{:?}", error.kind()),
            operation: error.operation().to_owned(),
            path: error.path().map(std::path::Path::to_owned),
            cause: error.cause().map(str::to_owned),
            hint: error.hint().map(str::to_owned),
            whole: error.to_string(),
        }
    }

    /// Returns the missing part of an error that should have operation, path and cause.
    pub(crate) fn lacks(&self, about_a_file: bool) -> Option<&'static str> {
        let names_it = self.path.is_some()
            || self.whole.contains('/')
            || self.whole.split(' ').any(|word| word == "process" || word == "processes");
        match () {
            () if self.operation.is_empty() => Some("operation"),
            () if about_a_file && !names_it => Some("path"),
            () if self.cause.is_none() => Some("cause"),
            () => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> ErrorReport {
        ErrorReport {
            phase: "prepare".to_owned(),
            kind: "Filesystem".to_owned(),
            operation: "publish the jail".to_owned(),
            path: Some("/base/x".into()),
            hint: Some("try again".to_owned()),
            cause: Some("out of space".to_owned()),
            whole: "failed to publish the jail /base/x: out of space. Try again.".to_owned(),
        }
    }

    #[test]
    fn incomplete_errors_are_found() {
        assert_eq!(report().lacks(true), None);
        assert_eq!(ErrorReport { cause: None, ..report() }.lacks(true), Some("cause"));
        assert_eq!(
            ErrorReport { operation: String::new(), ..report() }.lacks(true),
            Some("operation")
        );
        let pathless = ErrorReport {
            path: None,
            whole: "failed to publish the jail: out of space. Try again.".to_owned(),
            ..report()
        };
        assert_eq!(pathless.lacks(true), Some("path"));
        assert_eq!(pathless.lacks(false), None);
    }
}

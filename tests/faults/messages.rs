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
    pub(crate) hint: Option<String>,
    /// The error's own layer.
    pub(crate) display: String,
    /// The error with all causes, as one string.
    pub(crate) whole: String,
    /// True if the error has a source.
    pub(crate) has_source: bool,
}

impl ErrorReport {
    pub(crate) fn new(phase: &str, error: &VmRuntimeError) -> Self {
        let failure = error.failure();
        Self {
            phase: phase.to_owned(),
            kind: format!("{:?}", error.kind()),
            operation: failure.operation().to_owned(),
            path: failure.at().map(std::path::Path::to_owned),
            hint: failure.hint().map(str::to_owned),
            display: failure.to_string(),
            whole: (**failure).to_owned(),
            has_source: std::error::Error::source(failure).is_some(),
        }
    }

    /// Returns the missing part of an error that should have operation, path and cause.
    pub(crate) fn lacks(&self, about_a_file: bool) -> Option<&'static str> {
        let bare = self.operation.chars().count()
            + self.path.as_ref().map_or(0, |path| path.to_string_lossy().chars().count() + 1)
            + self.hint.as_ref().map_or(0, |hint| hint.chars().count() + 2);
        let says_why = self.has_source || self.display.chars().count() > bare;
        let names_it = self.path.is_some()
            || self.whole.contains('/')
            || self.whole.split(' ').any(|word| word == "process" || word == "processes");
        match () {
            () if self.operation.is_empty() => Some("operation"),
            () if about_a_file && !names_it => Some("path"),
            () if !says_why => Some("cause"),
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
            display: "publish the jail /base/x; try again".to_owned(),
            whole: "publish the jail /base/x; try again: out of space".to_owned(),
            has_source: true,
        }
    }

    #[test]
    fn incomplete_errors_are_found() {
        assert_eq!(report().lacks(true), None);
        assert_eq!(ErrorReport { has_source: false, ..report() }.lacks(true), Some("cause"));
        let because = "publish the jail /base/x: the name is taken; try again".to_owned();
        assert_eq!(
            ErrorReport { has_source: false, display: because, ..report() }.lacks(true),
            None
        );
        assert_eq!(
            ErrorReport { operation: String::new(), ..report() }.lacks(true),
            Some("operation")
        );
        let pathless = ErrorReport {
            path: None,
            display: "publish the jail; try again".to_owned(),
            whole: "publish the jail; try again: out of space".to_owned(),
            ..report()
        };
        assert_eq!(pathless.lacks(true), Some("path"));
        assert_eq!(pathless.lacks(false), None);
    }
}

//! What passes between a launcher and whoever watches it: an order on its stdin, lines of JSON on its stdout.

use std::path::PathBuf;

use microvm_runtime::{JailSpec, JailerConfig, VmRuntimeError};
use serde::{Deserialize, Serialize};

/// What a launcher is to do.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) role: Role,
    pub(crate) jailer_bin: PathBuf,
    pub(crate) base: PathBuf,
    pub(crate) cgroup_parent: String,
    pub(crate) spec: JailSpec,
    /// Kill the VM in the end, instead of asking it to shut down.
    pub(crate) kill: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Role {
    /// Take the VM through its life.
    Life,
    /// Clear away what a launcher that was killed left, then the same.
    Recovery,
    /// Stop what a launcher that was killed left, then the same on top of it.
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
    /// It failed, and is tried again.
    Failed(Told),
    /// It failed again: the launcher gives up.
    Gave(Told),
    /// All phases are through.
    Over,
}

/// An error as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) phase: String,
    pub(crate) kind: String,
    pub(crate) operation: String,
    pub(crate) path: Option<PathBuf>,
    pub(crate) hint: Option<String>,
    /// Its own layer.
    pub(crate) display: String,
    /// It and its causes, as one string.
    pub(crate) whole: String,
    /// Whether there is a cause below.
    pub(crate) has_source: bool,
}

impl Told {
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

    /// What is missing from an error that should say operation, path and cause.
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

    fn told() -> Told {
        Told {
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
    fn an_error_that_lacks_something_is_seen() {
        assert_eq!(told().lacks(true), None);
        assert_eq!(Told { has_source: false, ..told() }.lacks(true), Some("cause"));
        let because = "publish the jail /base/x: the name is taken; try again".to_owned();
        assert_eq!(Told { has_source: false, display: because, ..told() }.lacks(true), None);
        assert_eq!(Told { operation: String::new(), ..told() }.lacks(true), Some("operation"));
        let pathless = Told {
            path: None,
            display: "publish the jail; try again".to_owned(),
            whole: "publish the jail; try again: out of space".to_owned(),
            ..told()
        };
        assert_eq!(pathless.lacks(true), Some("path"));
        assert_eq!(pathless.lacks(false), None);
    }
}

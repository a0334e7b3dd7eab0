//! The parent of the jail's control group: [`ParentCgroup`].

use crate::text::text_type;
use crate::{Error, ErrorKind, JailId, name};

/// The control group above the jail's own, relative to the hierarchy's mount, the jailer's
/// `--parent-cgroup`.
///
/// Without a `--cgroup` it is the group the VMM joins, with v2 and from release 1.6.0 on, where it
/// exists; else it is ignored in silence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct ParentCgroup(String);

text_type!(ParentCgroup, check_parent);

impl ParentCgroup {
    /// The group of a jail in this one, `<parent>/<id>`: where the jailer makes it when it is given
    /// a `--cgroup`.
    #[must_use]
    pub fn join(&self, id: &JailId) -> Self {
        Self(format!("{}/{id}", self.0))
    }
}

fn check_parent(parent: String) -> Result<String, Error> {
    let reason = if parent.starts_with('/') {
        "it is absolute".into()
    } else if parent.starts_with('-') {
        "it begins with a hyphen".into()
    } else if let Some(fault) = parent.split('/').find_map(name::fault) {
        format!("a name in it is refused: {fault}")
    } else {
        return Ok(parent);
    };
    Err(Error::new(ErrorKind::ParentCgroup, parent, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parent_rules() {
        for parent in ["microvm.slice", "a/b/c", "a b", "é", "a/-b"] {
            assert_eq!(ParentCgroup::new(parent).unwrap().as_str(), parent);
        }
        for parent in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "./a",
            "a/.",
            "a/../b",
            "-h",
            "--",
            "a\nb",
            "a\0",
            &"a".repeat(256),
        ] {
            let error = ParentCgroup::new(parent).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::ParentCgroup, parent), "{error}");
        }
        let id = JailId::new("vm-1").unwrap();
        assert_eq!(
            ParentCgroup::new("microvm.slice").unwrap().join(&id).as_str(),
            "microvm.slice/vm-1"
        );
    }
}

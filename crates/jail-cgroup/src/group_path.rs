//! Where a group lies below its mount.

use std::fmt;

use crate::{Error, ErrorKind, Result};

/// The longest name of a directory, in bytes.
const NAME_MAX: usize = 255;
/// The longest path this crate makes, in bytes: room is left for a mount point and a file within `PATH_MAX`.
const PATH_MAX: usize = 2048;

/// A group's place below a mount: names joined by `/`, none of them empty, `.` or `..`, none a line feed or NUL inside.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub(crate) struct GroupPath(String);

impl GroupPath {
    pub(crate) fn new(path: &str) -> Result<Self> {
        let refused = |reason: String| {
            Error::new(ErrorKind::InvalidInput, format!("accept the control group {path:?}"))
                .because(reason)
                .hinted("give a relative path of plain names, such as machines/web-1")
        };
        if path.len() > PATH_MAX {
            return Err(refused(format!("it is {} bytes long, of at most {PATH_MAX}", path.len())));
        }
        for name in path.split('/') {
            check_name(name).map_err(|reason| refused(reason.to_owned()))?;
        }
        Ok(Self(path.to_owned()))
    }

    /// The group `leaf` below this one; `leaf` is a single name.
    pub(crate) fn join(&self, leaf: &str) -> Result<Self> {
        if leaf.contains('/') {
            return Err(Error::new(ErrorKind::InvalidInput, format!("accept the leaf {leaf:?}"))
                .because("a leaf is a single name")
                .hinted("put what comes before it into the parent"));
        }
        Self::new(&format!("{}/{leaf}", self.0))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    match name {
        "" => Err("a name in it is empty"),
        "." | ".." => Err("it has a `.` or `..`"),
        _ if name.len() > NAME_MAX => Err("a name in it is longer than 255 bytes"),
        _ if name.contains(['\n', '\0']) => Err("a name in it has a line feed or a NUL"),
        _ => Ok(()),
    }
}

impl fmt::Display for GroupPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl TryFrom<String> for GroupPath {
    type Error = Error;

    fn try_from(path: String) -> Result<Self> {
        Self::new(&path)
    }
}

impl From<GroupPath> for String {
    fn from(path: GroupPath) -> Self {
        path.0
    }
}

#[cfg(test)]
mod tests {
    use std::path::{Component, Path};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_paths_are_named() {
        let long = "x".repeat(256);
        for path in ["", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\nb", "a\0b", &long]
        {
            let error = GroupPath::new(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("{path:?}")), "{error}");
        }
        let parent = GroupPath::new("microvm.slice/tenant a").unwrap();
        let leaf = parent.join("vm-1").unwrap();
        assert_eq!(leaf.names().collect::<Vec<_>>(), ["microvm.slice", "tenant a", "vm-1"]);
        for leaf in ["", "..", "a/b", "/"] {
            assert_eq!(parent.join(leaf).unwrap_err().kind(), ErrorKind::InvalidInput, "{leaf}");
        }
    }

    proptest! {
        /// Whatever is accepted stays below the mount it is joined to.
        #[test]
        fn never_outside_the_mount(path in ".*|[./a\\n]{0,12}", leaf in ".*|[./a]{0,4}") {
            if let Ok(path) = GroupPath::new(&path).and_then(|parent| parent.join(&leaf)) {
                let path = Path::new(path.as_str());
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(path.components().count() >= 2);
            }
        }
    }
}

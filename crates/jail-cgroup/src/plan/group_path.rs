//! Paths of groups below a mount.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

#[cfg(feature = "serde")]
use crate::path_text::PathText;
use crate::{Error, ErrorKind, Result};

/// Longest name of a directory, in bytes.
const NAME_MAX: usize = 255;
/// Longest path of a group, in bytes. Leaves room in `PATH_MAX` for a mount point and a file.
const PATH_MAX: usize = 2048;
/// Most names in a path. Each name is a directory in each hierarchy, and the kernel needs time for each.
const NAMES_MAX: usize = 32;

/// Path of a group below a mount: names joined by `/`, each of plain bytes, none of them empty, `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "PathText", into = "PathText"))]
pub(crate) struct GroupPath(PathBuf);

impl GroupPath {
    pub(crate) fn new(path: impl AsRef<OsStr>) -> Result<Self> {
        let path = path.as_ref();
        let refused = |reason: String| {
            // Cut: the error must not be as long as the input.
            let shown = path.as_bytes().get(..NAME_MAX).unwrap_or(path.as_bytes());
            let shown = String::from_utf8_lossy(shown);
            Error::new(ErrorKind::InvalidInput, format!("accept the control group {shown:?}"))
                .because(reason)
                .hinted("Give a relative path of plain names, such as machines/web-1.")
        };
        if path.len() > PATH_MAX {
            return Err(refused(format!(
                "the path has {} bytes, of at most {PATH_MAX}",
                path.len()
            )));
        }
        let names = path.as_bytes().split(|byte| *byte == b'/').count();
        if names > NAMES_MAX {
            return Err(refused(format!("the path has {names} names, of at most {NAMES_MAX}")));
        }
        for name in path.as_bytes().split(|byte| *byte == b'/') {
            check_name(name).map_err(|reason| refused(reason.to_owned()))?;
        }
        Ok(Self(path.into()))
    }

    /// Returns the group `leaf` below this one; `leaf` is a single name.
    pub(crate) fn join(&self, leaf: impl AsRef<OsStr>) -> Result<Self> {
        let leaf = leaf.as_ref();
        if leaf.as_bytes().contains(&b'/') {
            return Err(Error::new(ErrorKind::InvalidInput, "accept the leaf's name")
                .because("a leaf is a single name, without a slash")
                .hinted("Put the names before the last slash into the parent."));
        }
        Self::new(self.0.join(leaf))
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &OsStr> {
        self.0.iter()
    }

    pub(crate) fn as_path(&self) -> &Path {
        &self.0
    }
}

fn check_name(name: &[u8]) -> Result<(), &'static str> {
    match name {
        b"" => Err("a name in it is empty"),
        b"." | b".." => Err("it has a `.` or `..`"),
        _ if name.len() > NAME_MAX => Err("a name in it is longer than 255 bytes"),
        _ if name.iter().any(|byte| matches!(byte, b'\n' | 0)) => {
            Err("a name in it has a line feed or a NUL")
        }
        _ => Ok(()),
    }
}

#[cfg(feature = "serde")]
impl TryFrom<PathText> for GroupPath {
    type Error = Error;

    fn try_from(path: PathText) -> Result<Self> {
        Self::new(PathBuf::from(path))
    }
}

#[cfg(feature = "serde")]
impl From<GroupPath> for PathText {
    fn from(path: GroupPath) -> Self {
        path.0.into()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Component;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn bad_paths_are_named() {
        let long = "x".repeat(256);
        let deep = ["a"; 33].join("/");
        for path in
            [&deep, "", "/", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\nb", "a\0b", &long]
        {
            let error = GroupPath::new(path).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().len() < 600, "{error}");
        }
        let parent = GroupPath::new("microvm.slice/tenant a").unwrap();
        let leaf = parent.join("vm-1").unwrap();
        assert_eq!(leaf.names().collect::<Vec<_>>(), ["microvm.slice", "tenant a", "vm-1"]);
        for leaf in ["", "..", "a/b", "/"] {
            assert_eq!(parent.join(leaf).unwrap_err().kind(), ErrorKind::InvalidInput, "{leaf}");
        }
    }

    proptest! {
        /// An accepted path stays below the mount.
        #[test]
        fn never_outside_the_mount(path in ".*|[./a\\n]{0,12}", leaf in ".*|[./a]{0,4}") {
            if let Ok(path) = GroupPath::new(&path).and_then(|parent| parent.join(&leaf)) {
                let path = path.as_path();
                prop_assert!(path.components().all(|part| matches!(part, Component::Normal(_))));
                prop_assert!(path.components().count() >= 2);
            }
        }
    }
}

//! The owner of a leaf: a mark on each of the leaf's directories.

use std::fmt;

use crate::sys::Errno;

use crate::dir::Dir;
use crate::{Error, ErrorKind, Result};

/// Extended attribute of a leaf's directory: claims the leaf for one creator, and holds the owner's mark. Empty for a leaf
/// without an owner.
const CLAIM: &str = "trusted.jail-cgroup.leaf";
/// Extended attribute of a parent that this crate made: the parent goes with its last leaf. Other parents stay.
const MADE: &str = "trusted.jail-cgroup";
/// Longest mark, in bytes.
const MARK_MAX: usize = 512;

/// Mark of 1 to [`MARK_MAX`] bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub(crate) struct Owner(String);

/// Claim on a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Claim {
    /// No creator has claimed the directory: its creation was cut short, or another program made it.
    None,
    /// Claimed without an owner.
    Unowned,
    /// Claimed for the owner with this mark.
    Owned(Vec<u8>),
}

impl Owner {
    pub(crate) fn new(mark: &str) -> Result<Self> {
        let refused = |reason: String| {
            Err(Error::new(ErrorKind::InvalidInput, "accept the owner's mark").because(reason))
        };
        match mark.len() {
            0 => refused("the mark is empty".to_owned()),
            1..=MARK_MAX => Ok(Self(mark.to_owned())),
            length => refused(format!("the mark has {length} bytes, of at most {MARK_MAX}")),
        }
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl TryFrom<String> for Owner {
    type Error = Error;

    fn try_from(mark: String) -> Result<Self> {
        Self::new(&mark)
    }
}

impl From<Owner> for String {
    fn from(owner: Owner) -> Self {
        owner.0
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None | Self::Unowned => f.write_str("no owner"),
            Self::Owned(mark) => write!(f, "the owner {:?}", String::from_utf8_lossy(mark)),
        }
    }
}

impl Claim {
    /// Reads the claim on `dir` (fgetxattr(2)).
    pub(crate) fn read(dir: &Dir) -> Result<Self> {
        let mark = match dir.attribute(CLAIM, MARK_MAX) {
            Ok(mark) => mark,
            // A filesystem without attributes has no claims.
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => None,
            Err(error) => return Err(error),
        };
        Ok(Self::parse(mark))
    }

    /// Parses the attribute of a directory.
    pub(crate) fn parse(mark: Option<Vec<u8>>) -> Self {
        match mark {
            None => Self::None,
            Some(mark) if mark.is_empty() => Self::Unowned,
            Some(mark) => Self::Owned(mark),
        }
    }

    /// Claims the directory of a new leaf, for `owner` if there is one, by one call of fsetxattr(2). Fails with `EEXIST` if
    /// the directory is claimed already.
    pub(crate) fn make(dir: &Dir, owner: Option<&Owner>) -> Result<()> {
        let mark = owner.map(Owner::as_str).unwrap_or_default();
        match (dir.set_attribute(CLAIM, mark.as_bytes()), owner) {
            // Without an owner, the claim may be missing.
            (Err(error), None) if error.errno() != Some(Errno::EXIST) => Ok(()),
            (Err(error), Some(_)) if error.errno() == Some(Errno::PERM) => {
                Err(error.hinted("Run with CAP_SYS_ADMIN, or make the leaf without an owner."))
            }
            (done, _) => done,
        }
    }

    /// Returns true if `owner` made the claim.
    pub(crate) fn is_of(&self, owner: &Owner) -> bool {
        matches!(self, Self::Owned(mark) if mark == owner.as_str().as_bytes())
    }
}

/// Marks a parent as made by this crate.
pub(crate) fn mark_parent(dir: &Dir) -> Result<()> {
    dir.set_attribute(MADE, b"1")
}

/// Returns true if this crate made the parent. A mark that cannot be read counts as none.
pub(crate) fn is_marked_parent(dir: &Dir) -> bool {
    dir.attribute(MADE, 8).is_ok_and(|mark| mark.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_bounded() {
        for (mark, good) in
            [(String::new(), false), ("x".repeat(512), true), ("x".repeat(513), false)]
        {
            assert_eq!(Owner::new(&mark).is_ok(), good, "{}", mark.len());
        }
    }
}

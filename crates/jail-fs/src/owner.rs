//! Owners of files.

use std::fmt;

use crate::error::{Error, ErrorKind, Result};
use crate::sys;

/// A user and a group, by number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(try_from = "Parts", into = "Parts")
)]
pub struct Owner {
    uid: u32,
    gid: u32,
}

impl Owner {
    /// User and group 0.
    pub const ROOT: Self = Self { uid: 0, gid: 0 };

    /// Makes an owner from a uid and a gid.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for 4294967295, which means no change to chown(2).
    pub fn new(uid: u32, gid: u32) -> Result<Self> {
        if uid == u32::MAX || gid == u32::MAX {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "use as an owner",
                format!("{uid}:{gid}"),
            )
            .because("4294967295 means no change to chown(2)"));
        }
        Ok(Self { uid, gid })
    }

    /// Makes the owner that the kernel reports for an inode.
    pub(crate) const fn of_inode(uid: u32, gid: u32) -> Self {
        Self { uid, gid }
    }

    /// Returns the effective user and group of this process (`geteuid(2)`, `getegid(2)`).
    #[must_use]
    pub fn caller() -> Self {
        Self { uid: sys::effective_uid(), gid: sys::effective_gid() }
    }

    /// Returns the user's number.
    #[must_use]
    pub const fn uid(self) -> u32 {
        self.uid
    }

    /// Returns the group's number.
    #[must_use]
    pub const fn gid(self) -> u32 {
        self.gid
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.uid, self.gid)
    }
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
struct Parts {
    uid: u32,
    gid: u32,
}

#[cfg(feature = "serde")]
impl From<Owner> for Parts {
    fn from(Owner { uid, gid }: Owner) -> Self {
        Self { uid, gid }
    }
}

#[cfg(feature = "serde")]
impl TryFrom<Parts> for Owner {
    type Error = Error;

    fn try_from(Parts { uid, gid }: Parts) -> Result<Self> {
        Self::new(uid, gid)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unchanged_id_is_refused() {
        assert_eq!(Owner::new(0, 0).unwrap(), Owner::ROOT);
        assert!(Owner::new(u32::MAX - 1, u32::MAX - 1).is_ok());
        for (uid, gid) in [(u32::MAX, 0), (0, u32::MAX)] {
            let error = Owner::new(uid, gid).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("4294967295"));
        }
    }
}

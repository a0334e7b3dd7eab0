//! Receipts of staging.

use std::fmt;
use std::path::{Path, PathBuf};

use crate::inode::{Facts, InodeId, SourceStamp};
use crate::name::Name;
use crate::owner::Owner;

/// The receipt of one staged artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Receipt {
    /// The name in the tree.
    pub name: Name,
    /// The step of the ladder that was taken.
    pub strategy: Strategy,
    /// The reason against the cheaper strategy, if there is one.
    pub fallback: Option<Fallback>,
    /// The bytes written; holes are not.
    pub bytes_copied: u64,
    /// The staged inode.
    pub inode: InodeId,
    /// The source at the time of opening.
    pub source: SourceStamp,
    /// The change of the source's owner, to be [returned](crate::return_persistent); `None` if there was none.
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub loan: Option<Loan>,
}

/// A change of owner, to be [returned](crate::return_persistent).
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Loan {
    /// The owner from the loan on.
    pub user: Owner,
    /// The owner before the loan.
    pub owner: Owner,
    /// The mode before the loan.
    pub mode: u32,
    #[cfg_attr(feature = "serde", serde(with = "as_text"))]
    path: PathBuf,
}

impl Loan {
    pub(crate) fn new(user: Owner, before: &Facts, path: PathBuf) -> Self {
        Self { user, owner: before.owner(), mode: before.mode, path }
    }

    /// Returns the path that the file was staged from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// A path as text, without loss.
#[cfg(feature = "serde")]
mod as_text {
    use std::ffi::OsString;
    use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
    use std::path::{Path, PathBuf};

    use serde::{Deserialize as _, Deserializer, Serializer, de};

    use crate::text::{decode, encode};

    pub(super) fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&encode(path.as_os_str().as_bytes()))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
        let text = String::deserialize(from)?;
        let bytes =
            decode(&text).ok_or_else(|| de::Error::custom("a stray backslash in a path"))?;
        Ok(OsString::from_vec(bytes).into())
    }
}

/// The way content came into a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Strategy {
    /// Another name for the shared source.
    HardLink,
    /// A fresh inode that shares the source's blocks until a write (FICLONE).
    Reflink,
    /// A fresh inode, data copied, holes kept.
    SparseCopy,
    /// Another name for the source, to be written through.
    PersistentLink,
    /// A device node with the device numbers of the source.
    DeviceNode,
}

/// The reason against a cheaper strategy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Serialize, serde::Deserialize),
    serde(rename_all = "snake_case")
)]
#[non_exhaustive]
pub enum Fallback {
    /// Source and tree are on two filesystems, or two mounts of one.
    OtherFilesystem,
    /// The filesystem has no reflinks or no further links.
    NotSupported,
    /// The source does not belong to root.
    NotRoots,
    /// Others than root can write to the source.
    WritableByOthers,
    /// The reader may not read the source.
    NotReadable,
    /// The source has set-id bits or file capabilities, which no jail gets.
    Privileged,
    /// The source has as many names as the filesystem allows.
    TooManyLinks,
    /// The kernel does not allow another name, as for an immutable file.
    LinkRefused,
}

impl fmt::Display for Strategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::HardLink => "hard link",
            Self::Reflink => "reflink",
            Self::SparseCopy => "sparse copy",
            Self::PersistentLink => "persistent link",
            Self::DeviceNode => "device node",
        })
    }
}

impl fmt::Display for Fallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OtherFilesystem => "the source is on another filesystem or mount",
            Self::NotSupported => "the filesystem cannot share blocks",
            Self::NotRoots => "the source does not belong to root",
            Self::WritableByOthers => "others than root can write to the source",
            Self::NotReadable => "the reader may not read the source",
            Self::Privileged => "the source has set-id bits or file capabilities",
            Self::TooManyLinks => "the source has as many names as the filesystem allows",
            Self::LinkRefused => "the kernel refused another name for the source",
        })
    }
}

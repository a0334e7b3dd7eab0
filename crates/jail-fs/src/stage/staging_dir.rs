//! The directory that a file is staged into.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use cap_std::fs::Dir;

use crate::inode::InodeId;

/// A directory of a [`StagedTree`](crate::StagedTree). Nobody but its maker can reach it until the tree is published,
/// and by then this value is gone: it borrows the tree.
#[derive(Debug)]
pub struct StagedDir<'tree> {
    dir: Dir,
    id: InodeId,
    tree: PhantomData<&'tree ()>,
}

impl StagedDir<'_> {
    pub(crate) fn new(dir: Dir, id: InodeId) -> Self {
        Self { dir, id, tree: PhantomData }
    }

    /// Returns the directory's identity.
    #[must_use]
    pub fn id(&self) -> InodeId {
        self.id
    }
}

impl Deref for StagedDir<'_> {
    type Target = Dir;

    fn deref(&self) -> &Dir {
        &self.dir
    }
}

impl AsFd for StagedDir<'_> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.dir.as_fd()
    }
}

/// The directory that a file is staged into: a [`Dir`] that others may be at work in, or a [`StagedDir`], in which a file
/// is made under its name, for fewer calls.
#[derive(Debug, Clone, Copy)]
pub struct StagingDir<'a> {
    dir: &'a Dir,
    is_private: bool,
}

impl<'a> StagingDir<'a> {
    /// A directory that nobody else can reach.
    pub(crate) fn private(dir: &'a Dir) -> Self {
        Self { dir, is_private: true }
    }

    pub(crate) fn dir(self) -> &'a Dir {
        self.dir
    }

    pub(crate) fn is_private(self) -> bool {
        self.is_private
    }
}

impl<'a> From<&'a Dir> for StagingDir<'a> {
    fn from(dir: &'a Dir) -> Self {
        Self { dir, is_private: false }
    }
}

impl<'a> From<&'a StagedDir<'_>> for StagingDir<'a> {
    fn from(staged: &'a StagedDir<'_>) -> Self {
        Self::private(&staged.dir)
    }
}

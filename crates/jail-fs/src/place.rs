//! Where staged files go, and who else can be there.

use std::marker::PhantomData;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd};

use cap_std::fs::Dir;

use crate::inode::InodeId;
use crate::tree::StagedTree;

/// A directory of a tree in the making. Nobody but its maker can reach it until the tree is published, and by then this
/// is gone: it borrows the tree.
#[derive(Debug)]
pub struct StagedDir<'tree> {
    dir: Dir,
    id: InodeId,
    tree: PhantomData<&'tree StagedTree>,
}

impl StagedDir<'_> {
    pub(crate) fn new(dir: Dir, id: InodeId) -> Self {
        Self { dir, id, tree: PhantomData }
    }

    /// Its identity.
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

/// The directory a file is staged into: a [`Dir`] that anybody may be at work in, or a [`StagedDir`], where a file can
/// be made under its name, which is cheaper.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    dir: &'a Dir,
    is_ours_alone: bool,
}

impl<'a> Place<'a> {
    pub(crate) fn ours_alone(dir: &'a Dir) -> Self {
        Self { dir, is_ours_alone: true }
    }

    pub(crate) fn dir(self) -> &'a Dir {
        self.dir
    }

    pub(crate) fn is_ours_alone(self) -> bool {
        self.is_ours_alone
    }
}

impl<'a> From<&'a Dir> for Place<'a> {
    fn from(dir: &'a Dir) -> Self {
        Self { dir, is_ours_alone: false }
    }
}

impl<'a> From<&'a StagedDir<'_>> for Place<'a> {
    fn from(staged: &'a StagedDir<'_>) -> Self {
        Self::ours_alone(&staged.dir)
    }
}

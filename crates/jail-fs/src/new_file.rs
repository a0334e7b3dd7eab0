//! A file on the way to its name: rule 3 of the threat model.

use std::fs::File;

use nix::errno::Errno;

use crate::error::{Error, Result};
use crate::fresh::{Fresh, link, take_back};
use crate::inode::InodeId;
use crate::maker::Maker;
use crate::name::Name;
use crate::owner::Owner;
use crate::place::Place;

/// A fresh file that is not whole yet. Dropped before it is [finished](Self::finish), it leaves nothing.
///
/// In a directory where others may be it has no name until then (`O_TMPFILE`). In a tree that is still aside nobody can
/// see it, and it is made under its name (`O_EXCL`): that saves a call, and two turns at the filesystem's list of
/// inodes without a name, which there is one of for all threads.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    file: File,
    inode: InodeId,
    place: Place<'a>,
    name: &'a Name,
    made_by: Maker,
    finished: bool,
}

impl<'a> NewFile<'a> {
    /// An empty file of this owner and mode.
    pub(crate) fn create(
        place: Place<'a>,
        name: &'a Name,
        owner: Owner,
        mode: u32,
    ) -> Result<Self> {
        let fresh = match place.is_ours_alone() {
            true => Fresh::named_file(place.dir(), name, mode)?,
            false => Fresh::file(place.dir(), name, mode)?,
        };
        let given = fresh.give((place.dir(), name), owner, mode);
        let inode = fresh.id();
        let file = fresh.into_file();
        let made_by = Maker::this_process();
        let this = Self { file, inode, place, name, made_by, finished: false };
        given.map(|()| this)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn inode(&self) -> InodeId {
        self.inode
    }

    pub(crate) fn failed(&self, operation: &'static str, errno: Errno) -> Error {
        Error::at(operation, self.place.dir(), self.name, errno)
    }

    /// It is whole: here it gets its name, if it has none.
    pub(crate) fn finish(mut self) -> Result<()> {
        if !self.place.is_ours_alone() {
            link(&self.file, self.place.dir(), self.name)
                .map_err(|errno| self.failed("create file", errno))?;
        }
        self.finished = true;
        Ok(())
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if !self.finished && self.place.is_ours_alone() && self.made_by.is_this_process() {
            take_back(self.place.dir(), self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::error::ErrorKind;
    use crate::inode::Facts;
    use crate::open::read_small;
    use crate::testing::trusted;
    use crate::tree::StagedTree;

    #[test]
    fn it_is_whole_under_its_name_or_it_is_not_there() {
        let (_tmp, parent) = trusted();
        let tree = StagedTree::create(&parent, &Name::try_from("one").unwrap()).unwrap();
        let name = Name::try_from("file").unwrap();
        for place in [tree.top(), parent.dir().into()] {
            let begin = || NewFile::create(place, &name, Owner::caller(), 0o600);
            let begun = begin().unwrap();
            begun.file().write_all(b"half").unwrap();
            drop(begun);
            assert_eq!(
                Facts::at(place.dir(), name.as_ref()).unwrap_err().kind(),
                ErrorKind::NotFound
            );
            let whole = begin().unwrap();
            whole.file().write_all(b"whole").unwrap();
            whole.finish().unwrap();
            // Taken, it is neither opened nor taken back.
            let again = begin().and_then(NewFile::finish);
            assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(read_small(place.dir(), "file", 5).unwrap(), b"whole");
        }
    }
}

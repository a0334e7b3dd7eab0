//! Files that are not whole yet: rule 3 of the threat model.

use std::fs::File;
use std::path::PathBuf;

use super::new_inode::{NewInode, take_back};
use super::staging_dir::StagingDir;
use crate::error::{Error, ErrorKind, Result};
use crate::inode::InodeId;
use crate::maker::Maker;
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno};

/// A new file that is not whole yet, to be [finished](Self::finish) or [abandoned](Self::abandon).
///
/// In a directory where others may be the file has no name until then (`O_TMPFILE`). In a tree that is still aside nobody
/// can see the file, and it is made under its name (`O_EXCL`): that saves a call, and two turns at the filesystem's list
/// of inodes without a name, which all threads share.
///
/// # Caveats
/// Dropped, as by a panic, the file is removed as far as possible.
#[derive(Debug)]
pub(crate) struct NewFile<'a> {
    file: File,
    inode: InodeId,
    place: StagingDir<'a>,
    name: &'a Name,
    made_by: Maker,
    /// Set while the name must go if the file is never whole.
    has_name: bool,
}

impl<'a> NewFile<'a> {
    /// Creates an empty file that is to have `size` bytes, with this owner and mode.
    pub(crate) fn create(
        place: StagingDir<'a>,
        name: &'a Name,
        (owner, mode): (Owner, u32),
        size: u64,
    ) -> Result<Self> {
        expect_allowed(size, || sys::path_of(place.dir()).join(name))?;
        let inode = match place.is_private() {
            true => NewInode::named_file(place.dir(), name, mode)?,
            false => NewInode::file(place.dir(), name, mode)?,
        };
        let given = inode.give((place.dir(), name), owner, mode);
        let (inode, file) = (inode.id(), inode.into_file());
        let made_by = Maker::this_process();
        let this = Self { file, inode, place, name, made_by, has_name: place.is_private() };
        match given {
            Ok(()) => Ok(this),
            Err(error) => Err(this.abandon(error)),
        }
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

    /// Gives the whole file the name, if still without.
    pub(crate) fn finish(mut self) -> Result<()> {
        if !self.place.is_private() {
            sys::link(&self.file, self.place.dir(), self.name.as_os_str())
                .map_err(|errno| self.failed("create file", errno))?;
        }
        self.has_name = false;
        Ok(())
    }

    /// Takes the file back because of `error`, which is returned with what could not be removed.
    pub(crate) fn abandon(mut self, error: Error) -> Error {
        if !std::mem::take(&mut self.has_name) {
            return error;
        }
        error.after(take_back(self.place.dir(), self.name))
    }
}

impl Drop for NewFile<'_> {
    fn drop(&mut self) {
        if self.has_name && self.made_by.is_this_process() {
            // After a panic only, in which nobody reads a further error; the tree is removed with all that is in it.
            let _ = take_back(self.place.dir(), self.name);
        }
    }
}

/// Checks `RLIMIT_FSIZE` first: the kernel would answer a larger write with SIGXFSZ, which kills.
fn expect_allowed(size: u64, place: impl FnOnce() -> PathBuf) -> Result<()> {
    match sys::file_size_limit() {
        Some(limit) if size > limit => Err(Error::new(ErrorKind::Limit, "create file", place())
            .because(format!("it is to have {size} bytes, RLIMIT_FSIZE allows {limit}"))
            .hinted("Raise RLIMIT_FSIZE of this process (ulimit -f).")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;
    use crate::base::read_small;
    use crate::inode::Facts;
    use crate::testing::trusted;
    use crate::tree::StagedTree;

    #[test]
    fn new_files_are_whole() {
        let (_tmp, parent) = trusted();
        let tree = StagedTree::create(&parent, &Name::try_from("one").unwrap()).unwrap();
        let name = Name::try_from("file").unwrap();
        for place in [tree.top(), parent.dir().into()] {
            let begin = || NewFile::create(place, &name, (Owner::caller(), 0o600), 5);
            let absent = || {
                let found = Facts::at(place.dir(), name.as_ref());
                found.unwrap_err().kind() == ErrorKind::NotFound
            };
            let begun = begin().unwrap();
            begun.file().write_all(b"half").unwrap();
            drop(begun);
            assert!(absent());
            let error = Error::new(ErrorKind::Cancelled, "copy", "/image");
            assert_eq!(begin().unwrap().abandon(error).left_behind().len(), 0);
            assert!(absent());
            let whole = begin().unwrap();
            whole.file().write_all(b"whole").unwrap();
            whole.finish().unwrap();
            // A name that is taken is neither opened nor taken back.
            let again = begin().and_then(NewFile::finish);
            assert_eq!(again.unwrap_err().kind(), ErrorKind::AlreadyExists);
            assert_eq!(read_small(place.dir(), "file", 5).unwrap(), b"whole");
        }
    }
}

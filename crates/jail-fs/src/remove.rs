//! Removing a whole tree: rules 8 and 9 of the threat model.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::{UnlinkatFlags, Whence, lseek, unlinkat};
use rustix::fs::{FileType, IFlags, RawDir, ioctl_getflags, ioctl_setflags};

use crate::error::{Error, ErrorKind, Result, errno, locate};
use crate::inode::{Facts, InodeId};
use crate::mounts;
use crate::name::Name;
use crate::open;
use crate::trusted::TrustedDir;
use crate::unique::unique;

const OPERATION: &str = "remove tree";

/// Trees that are being removed are called this and something.
pub(crate) const TRASH: &str = ".trash-";

/// How often directories may be found refilled before the removal is given up.
const REFILLS: u32 = 64;

/// How often one directory is asked for more entries: enough for some 60 million of them.
const READS: u32 = 1 << 16;

/// The same for the top, which takes in every directory that is lifted.
const READS_OF_TOP: u32 = 1 << 24;

/// After fewer entries than this at once there are probably no more: removing the directory tells for certain.
const FEW: u64 = 64;

/// Bytes of directory entries that are read at once.
const BUFFER: usize = 32 << 10;

/// What a removal removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Removed {
    /// Files, nodes, links, sockets and directories, the tree's own directory included; 0 where there was none.
    pub entries: u64,
}

/// Removes the directory `name` in `parent` and all that is in it. That there is none is fine.
///
/// The tree is looked through for mounts, moved aside by one rename, and emptied: by descriptor, following no link and
/// crossing no mount, with five descriptors and constant memory however deep it is, for a directory that is not empty
/// is lifted to the top (`renameat2(2)`) and never descended from.
///
/// `expected` is the inode recorded when the tree was made: a tree that has taken its place is left alone.
///
/// # Errors
/// [`Mounted`](ErrorKind::Mounted), with the list, before anything is touched; [`Replaced`](ErrorKind::Replaced) for
/// another inode than `expected`; [`Untrusted`](ErrorKind::Untrusted) where `name` is no directory;
/// [`Busy`](ErrorKind::Busy) where processes keep filling it; [`Privilege`](ErrorKind::Privilege) at an immutable file.
/// What could not be removed stays aside, at the error's path, until [`sweep`](crate::sweep) finds it.
///
/// # Privileges
/// `CAP_DAC_OVERRIDE` and `CAP_FOWNER` for what others own.
pub fn remove_tree(parent: &TrustedDir, name: &Name, expected: Option<InodeId>) -> Result<Removed> {
    let Some(found) = find(parent, name)? else { return Ok(Removed::default()) };
    let path = parent.path().join(name);
    let replaced = |id| {
        Error::new(ErrorKind::Replaced, OPERATION, &path)
            .because(format!("its inode is {id}, another was expected"))
    };
    if expected.is_some_and(|expected| expected != found.facts.id) {
        return Err(replaced(found.facts.id));
    }
    refuse_mounts(OPERATION, &path, parent)?;
    let failed = |errno| Error::os(OPERATION, &path, errno);
    let aside = unique(TRASH, name).map_err(failed)?;
    rename(parent, name, &aside).map_err(failed)?;
    // Another root process may have put another tree in the name's place since it was looked at.
    match Facts::at(parent.dir(), aside.as_ref()) {
        Ok(moved) if moved.id != found.facts.id => {
            rename(parent, &aside, name)
                .map_err(|errno| Error::os(OPERATION, parent.path().join(&aside), errno))?;
            return Err(replaced(moved.id));
        }
        // A sweep may be done with it already.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_aside(parent, &aside, found)
}

/// A tree's own directory, opened.
pub(crate) struct Found {
    pub(crate) fd: OwnedFd,
    pub(crate) facts: Facts,
}

pub(crate) fn find(parent: &TrustedDir, name: &Name) -> Result<Option<Found>> {
    match open::directory(parent.dir(), name.as_ref()) {
        Ok(fd) => {
            let facts = Facts::of(&fd)?;
            Ok(Some(Found { fd, facts }))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(open::refused(OPERATION, parent.dir(), name.as_ref(), errno)),
    }
}

pub(crate) fn refuse_mounts(
    operation: &'static str,
    path: &Path,
    parent: &TrustedDir,
) -> Result<()> {
    let mounts = mounts::below(path, parent.mount())?;
    if mounts.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Mounted, operation, path).over_mounts(mounts))
}

/// Removes a tree whose name no one looks for any more.
pub(crate) fn remove_aside(parent: &TrustedDir, name: &Name, found: Found) -> Result<Removed> {
    let mut remover =
        Remover { removed: 0, lifted: 0, refills: 0, buffer: Vec::with_capacity(BUFFER) };
    let c_name = CString::new(name.as_os_str().as_bytes())
        .map_err(|_| Error::os(OPERATION, parent.path().join(name), Errno::EINVAL))?;
    remover.clear(parent.dir(), &c_name, &found.fd, READS_OF_TOP, |remover, full| {
        remover.flatten(&found.fd, None, full)
    })?;
    Ok(Removed { entries: remover.removed })
}

fn rename(parent: &TrustedDir, from: &Name, to: &Name) -> std::result::Result<(), Errno> {
    renameat2(
        parent.dir(),
        from.as_os_str(),
        parent.dir(),
        to.as_os_str(),
        RenameFlags::RENAME_NOREPLACE,
    )
}

struct Remover {
    removed: u64,
    lifted: u64,
    refills: u32,
    buffer: Vec<u8>,
}

/// What one reading of a directory came to.
struct Batch {
    /// Directories with something in them.
    full: Vec<CString>,
    /// Entries that were seen, removed or not.
    seen: u64,
}

impl Remover {
    /// Removes the directory `name` in `parent`, held as `dir`, and what is in it; `full` is to empty or lift the full
    /// directories there.
    fn clear(
        &mut self,
        parent: impl AsFd,
        name: &CStr,
        dir: &OwnedFd,
        reads: u32,
        mut full: impl FnMut(&mut Self, &CStr) -> Result<()>,
    ) -> Result<()> {
        let mut lifted = self.lifted;
        for _ in 0..reads {
            let batch = self.batch(dir, reads == READS_OF_TOP)?;
            for name in &batch.full {
                full(self, name)?;
            }
            if batch.seen >= FEW {
                continue;
            }
            match unlinkat(&parent, name, UnlinkatFlags::RemoveDir) {
                Ok(()) => {
                    self.removed += 1;
                    return Ok(());
                }
                // Gone, or made something else, which is looked at when its parent is read again.
                Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(()),
                Err(Errno::ENOTEMPTY) if batch.seen > 0 => continue,
                // At the end. What was lifted here may be behind; anything else is new.
                Err(Errno::ENOTEMPTY) if self.lifted > lifted => lifted = self.lifted,
                Err(Errno::ENOTEMPTY) if self.refills < REFILLS => self.refills += 1,
                Err(errno) => return Err(self.failed(&parent, name, errno)),
            }
            lseek(dir, 0, Whence::SeekSet)
                .map_err(|errno| Error::os(OPERATION, locate(dir), errno))?;
        }
        Err(self.failed(parent, name, Errno::ENOTEMPTY))
    }

    /// Removes the directory `name` in `top`, after lifting the full directories in it to the top. `outer` is the top
    /// above that, where `top` is a subvolume.
    fn flatten(&mut self, top: &OwnedFd, outer: Option<&OwnedFd>, name: &CStr) -> Result<()> {
        let dir = match open::directory(top, os(name)) {
            Ok(dir) => dir,
            // Gone, or made something else, which the next reading of the top will see.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(errno) => return Err(open::refused(OPERATION, top, os(name).as_ref(), errno)),
        };
        let mut is_subvolume = false;
        let flat = self.clear(top, name, &dir, READS, |remover, full| {
            match remover.lift(&dir, full, top) {
                Ok(()) | Err(Errno::ENOENT) => Ok(()),
                Err(errno) => {
                    is_subvolume = errno == Errno::EXDEV;
                    Err(remover.failed(&dir, full, errno))
                }
            }
        });
        match (flat, outer) {
            // The directories of a btrfs subvolume stay in it: it is emptied like a tree of its own.
            (Err(_), None) if is_subvolume => {
                self.clear(top, name, &dir, READS_OF_TOP, |remover, full| {
                    remover.flatten(&dir, Some(top), full)
                })
            }
            // Itself it can be lifted, and no more than two are then open at once.
            (Err(_), Some(outer)) if is_subvolume => {
                self.lift(top, name, outer).map_err(|errno| self.failed(top, name, errno))
            }
            (flat, _) => flat,
        }
    }

    /// Reads some entries of `dir`, and removes what can be removed at once. In the top most directories are full, and
    /// are taken for that.
    fn batch(&mut self, dir: &OwnedFd, is_top: bool) -> Result<Batch> {
        let mut batch = Batch { full: Vec::new(), seen: 0 };
        let mut buffer = std::mem::take(&mut self.buffer);
        let mut entries = RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry.map_err(errno) {
                Ok(entry) => entry,
                // The directory itself is gone: someone else sweeps too.
                Err(Errno::ENOENT) => break,
                Err(errno) => return Err(Error::os(OPERATION, locate(dir), errno)),
            };
            let (name, kind) = (entry.file_name(), entry.file_type());
            if !matches!(name.to_bytes(), b"." | b"..") {
                batch.seen += 1;
                if is_top && kind == FileType::Directory || !self.unlink(dir, name, kind)? {
                    batch.full.push(name.to_owned());
                }
            }
            // A batch with nothing but "." and ".." in it is not the last one.
            if batch.seen > 0 && entries.is_buffer_empty() {
                break;
            }
        }
        self.buffer = buffer;
        Ok(batch)
    }

    /// Removes an entry, unless it is a full directory: false.
    fn unlink(&mut self, dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool> {
        if kind != FileType::Directory {
            match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) => {
                    self.removed += 1;
                    return Ok(true);
                }
                Err(Errno::ENOENT) => return Ok(true),
                Err(Errno::EISDIR) => {}
                Err(errno) => return Err(self.failed(dir, name, errno)),
            }
        }
        match unlinkat(dir, name, UnlinkatFlags::RemoveDir) {
            Ok(()) => {
                self.removed += 1;
                Ok(true)
            }
            Err(Errno::ENOENT) => Ok(true),
            Err(Errno::ENOTEMPTY | Errno::ENOTDIR) => Ok(false),
            Err(errno) => Err(self.failed(dir, name, errno)),
        }
    }

    /// Moves a directory to the top, under a name that is free there.
    fn lift(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        top: &OwnedFd,
    ) -> std::result::Result<(), Errno> {
        let mut inherits = true;
        loop {
            let to = format!(".lifted-{}", self.lifted);
            self.lifted += 1;
            match renameat2(dir, name, top, to.as_str(), RenameFlags::RENAME_NOREPLACE) {
                Err(Errno::EEXIST) => {}
                // Also where the top wants its project quota inherited and the directory has another.
                Err(Errno::EXDEV) if inherits => {
                    inherits = false;
                    forget_project(top);
                }
                answer => return answer,
            }
        }
    }

    /// Why an entry cannot be removed or moved.
    fn failed(&self, dir: impl AsFd, name: &CStr, errno: Errno) -> Error {
        let error = Error::at(OPERATION, &dir, os(name), errno);
        match errno {
            Errno::EBUSY => error.over_mounts(vec![locate(dir).join(os(name))]),
            Errno::ENOTEMPTY => error
                .of_kind(ErrorKind::Busy)
                .because("it is filled again and again")
                .hinted("stop the processes that write to it"),
            Errno::EPERM if immutable(&dir, name) => error
                .because("it, or its directory, is immutable")
                .hinted("chattr -ia, then try again"),
            _ => error,
        }
    }
}

fn immutable(dir: impl AsFd, name: &CStr) -> bool {
    let entry = Facts::at(&dir, os(name));
    [entry, Facts::of(&dir)].into_iter().flatten().any(|facts| facts.immutable)
}

/// Best effort: if it fails, the rename fails again and tells why.
fn forget_project(top: &OwnedFd) {
    if let Ok(flags) = ioctl_getflags(top) {
        let _ = ioctl_setflags(top, flags - IFlags::PROJECT_INHERIT);
    }
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::trusted;

    #[test]
    fn a_tree_goes_and_what_its_links_lead_to_stays() {
        let (tmp, parent) = trusted();
        let path = |name: &str| tmp.path().join(name);
        fs::create_dir_all(path("tree/a/b/c/d")).unwrap();
        fs::create_dir_all(path("tree/a/empty")).unwrap();
        fs::create_dir(path("kept")).unwrap();
        fs::write(path("kept/file"), "kept").unwrap();
        fs::write(path("tree/a/b/file"), "").unwrap();
        symlink("../kept", path("tree/link")).unwrap();
        symlink("../../kept", path("tree/a/link")).unwrap();
        let name = Name::try_from("tree").unwrap();
        assert_eq!(remove_tree(&parent, &name, None).unwrap().entries, 9);
        assert_eq!(remove_tree(&parent, &name, None).unwrap().entries, 0);
        assert_eq!(parent.entries().unwrap(), [Name::try_from("kept").unwrap()]);
        assert_eq!(fs::read_to_string(path("kept/file")).unwrap(), "kept");
    }

    #[test]
    fn another_tree_of_that_name_is_left_alone() {
        let (tmp, parent) = trusted();
        let name = Name::try_from("tree").unwrap();
        fs::create_dir(tmp.path().join("tree")).unwrap();
        let id = parent.child(&name).unwrap().id();
        assert_eq!(
            remove_tree(&parent, &name, Some(parent.id())).unwrap_err().kind(),
            ErrorKind::Replaced
        );
        assert_eq!(parent.child(&name).unwrap().id(), id);
        assert_eq!(remove_tree(&parent, &name, Some(id)).unwrap().entries, 1);
    }

    #[test]
    fn only_a_directory_is_a_tree() {
        let (tmp, parent) = trusted();
        fs::create_dir(tmp.path().join("real")).unwrap();
        symlink("real", tmp.path().join("link")).unwrap();
        fs::write(tmp.path().join("file"), "").unwrap();
        for name in ["link", "file"] {
            let error = remove_tree(&parent, &Name::try_from(name).unwrap(), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
        }
        assert_eq!(parent.entries().unwrap().len(), 3);
    }
}

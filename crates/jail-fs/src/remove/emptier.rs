//! Emptying a tree with constant memory and descriptors: rule 9 of the threat model.

use std::ffi::{CStr, CString, OsStr};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;

use crate::base::refused_at;
use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::name::Name;
use crate::sys::{self, Errno, FileType};

pub(crate) const OPERATION: &str = "remove tree";

/// The number of refilled directories after which the removal is given up.
const REFILLS: u32 = 64;

/// The most reads of one directory: enough for some 60 million of them.
const READS: u32 = 1 << 16;

/// The same for the top, which takes in every directory that is lifted.
const READS_OF_TOP: u32 = 1 << 24;

/// After fewer entries than this at once there are probably no more: removing the directory tells for certain.
const FEW: u64 = 64;

/// Bytes of directory entries that are read at once.
const BUFFER: usize = 32 << 10;

/// Removes the directory `name` in `parent`, held as `top`, with all content; returns the number of entries.
pub(crate) fn empty_and_remove(parent: impl AsFd, name: &Name, top: &OwnedFd) -> Result<u64> {
    let mut remover =
        Remover { removed: 0, lifted: 0, refills: 0, buffer: Vec::with_capacity(BUFFER) };
    let c_name = CString::new(name.as_os_str().as_bytes())
        .map_err(|_| Error::at(OPERATION, &parent, name, Errno::EINVAL))?;
    remover.clear(parent, &c_name, top, READS_OF_TOP, |remover, full| {
        remover.flatten(top, None, full)
    })?;
    Ok(remover.removed)
}

struct Remover {
    removed: u64,
    lifted: u64,
    refills: u32,
    buffer: Vec<u8>,
}

/// The outcome of one reading of a directory.
struct Batch {
    /// The directories that are not empty.
    full: Vec<CString>,
    /// The number of entries seen, removed or not.
    seen: u64,
}

impl Remover {
    /// Removes the directory `name` in `parent`, held as `dir`, with all content; `full` is to empty or lift the full
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
            match sys::remove_dir(&parent, name) {
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
            sys::rewind(dir).map_err(|errno| Error::os(OPERATION, sys::path_of(dir), errno))?;
        }
        Err(self.failed(parent, name, Errno::ENOTEMPTY))
    }

    /// Moves the directories of `name` that are not empty up into `top`, and removes `name`. `outer` is
    /// the directory above `top`, if `top` is a btrfs subvolume.
    fn flatten(&mut self, top: &OwnedFd, outer: Option<&OwnedFd>, name: &CStr) -> Result<()> {
        let dir = match sys::directory(top, os(name)) {
            Ok(dir) => dir,
            // Gone, or made something else, which the next reading of the top will see.
            Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => return Ok(()),
            Err(errno) => {
                return Err(refused_at(OPERATION, sys::path_of(top).join(os(name)), errno));
            }
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
        let mut entries = sys::RawDir::new(dir, buffer.spare_capacity_mut());
        while let Some(entry) = entries.next() {
            let entry = match entry.map_err(sys::errno) {
                Ok(entry) => entry,
                // The directory itself is gone: someone else sweeps too.
                Err(Errno::ENOENT) => break,
                Err(errno) => return Err(Error::os(OPERATION, sys::path_of(dir), errno)),
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

    /// Removes an entry; returns false for a full directory.
    fn unlink(&mut self, dir: &OwnedFd, name: &CStr, kind: FileType) -> Result<bool> {
        if kind != FileType::Directory {
            match sys::unlink(dir, name) {
                Ok(()) => {
                    self.removed += 1;
                    return Ok(true);
                }
                Err(Errno::ENOENT) => return Ok(true),
                Err(Errno::EISDIR) => {}
                Err(errno) => return Err(self.failed(dir, name, errno)),
            }
        }
        match sys::remove_dir(dir, name) {
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
            match sys::rename_new((dir, name), (top, to.as_str())) {
                Err(Errno::EEXIST) => {}
                // Also where the top wants its project quota inherited and the directory has another.
                Err(Errno::EXDEV) if inherits => {
                    inherits = false;
                    // Without success the rename fails again, and its error is told.
                    let _ = sys::forget_project(top);
                }
                answer => return answer,
            }
        }
    }

    /// Makes the error of an entry that cannot be removed or moved.
    fn failed(&self, dir: impl AsFd, name: &CStr, errno: Errno) -> Error {
        let error = Error::at(OPERATION, &dir, os(name), errno);
        match errno {
            Errno::EBUSY => busy(error, &dir, os(name)),
            Errno::ENOTEMPTY => error
                .of_kind(ErrorKind::Busy)
                .because("processes fill it again and again")
                .hinted("Stop the processes that write to it."),
            Errno::EPERM if immutable(&dir, name) => error
                .because("it, or its directory, is immutable")
                .hinted("Clear the flags (chattr -ia), then try again."),
            _ => error,
        }
    }
}

/// Tells a mount point from an entry that the kernel uses otherwise (EBUSY).
pub(crate) fn busy(error: Error, dir: impl AsFd, name: &OsStr) -> Error {
    match Facts::at(&dir, name) {
        Ok(facts) if !facts.mount_root => error
            .because("the kernel is using it")
            .hinted("Find its user with lsof or swapon --show, then try again."),
        _ => error.over_mounts(vec![sys::path_of(dir).join(name)]),
    }
}

/// Looks for the immutable flag on an entry or the directory around; only for the words of an error.
fn immutable(dir: impl AsFd, name: &CStr) -> bool {
    let entry = Facts::at(&dir, os(name));
    [entry, Facts::of(&dir)].into_iter().flatten().any(|facts| facts.immutable)
}

fn os(name: &CStr) -> &OsStr {
    OsStr::from_bytes(name.to_bytes())
}

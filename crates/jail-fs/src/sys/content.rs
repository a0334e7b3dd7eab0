//! The content of files.

use std::fs::File;
use std::os::fd::AsFd;

use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::unistd::{Whence, fsync, ftruncate, lseek};
use rustix::fs::{FallocateFlags, copy_file_range, fallocate, ioctl_ficlone};

use super::{Errno, Result, errno, uninterrupted};

/// Shares all blocks of `from` with the empty file `to` (FICLONE).
pub(crate) fn clone_blocks(from: impl AsFd, to: &File) -> Result<()> {
    ioctl_ficlone(to, from).map_err(errno)
}

/// Copies in the kernel (copy_file_range(2)); returns how many bytes.
pub(crate) fn copy_range(from: &File, to: &File, position: u64, length: usize) -> Result<u64> {
    let done = uninterrupted(|| {
        let (mut at, mut to_at) = (position, position);
        copy_file_range(from, Some(&mut at), to, Some(&mut to_at), length)
    })?;
    Ok(u64::try_from(done).unwrap_or(0))
}

/// A run of data in a file, in bytes.
pub(crate) type Extent = (u64, u64);

/// The next data at or after `position` and before `size` (SEEK_DATA, SEEK_HOLE); the whole rest on a filesystem without
/// these.
pub(crate) fn next_extent(file: &File, position: u64, size: u64) -> Result<Option<Extent>> {
    if position >= size {
        return Ok(None);
    }
    let seek = |position: u64, whence| {
        let position = i64::try_from(position).map_err(|_| Errno::EFBIG)?;
        lseek(file, position, whence).map(|found| u64::try_from(found).unwrap_or(0))
    };
    let start = match seek(position, Whence::SeekData) {
        Ok(start) => start,
        Err(Errno::ENXIO) => return Ok(None),
        Err(Errno::EINVAL) => return Ok(Some((position, size))),
        Err(errno) => return Err(errno),
    };
    let end = seek(start, Whence::SeekHole)?;
    Ok((start < size).then_some((start, end.min(size))))
}

/// Sets the size (ftruncate(2)): all of the holes at once.
pub(crate) fn truncate(file: &File, size: u64) -> Result<()> {
    ftruncate(file, i64::try_from(size).map_err(|_| Errno::EFBIG)?)
}

/// Recognises filesystems on which allocation before a write is faster: a third faster on ext4, slower on xfs and btrfs.
pub(crate) fn prefers_allocation(file: &File) -> Result<bool> {
    Ok(fstatfs(file)?.filesystem_type() == EXT4_SUPER_MAGIC)
}

/// Allocates blocks; fine if the filesystem cannot, as ext3 and ext4 files without extents.
pub(crate) fn allocate(file: &File, at: u64, length: u64) -> Result<()> {
    match uninterrupted(|| fallocate(file, FallocateFlags::KEEP_SIZE, at, length)) {
        Err(Errno::EOPNOTSUPP) => Ok(()),
        answer => answer,
    }
}

/// Moves a directory to the beginning again.
pub(crate) fn rewind(dir: impl AsFd) -> Result<()> {
    lseek(dir, 0, Whence::SeekSet).map(drop)
}

pub(crate) fn sync(fd: impl AsFd) -> Result<()> {
    fsync(fd)
}

//! Files by descriptor: opening with fixed flags, and the properties of an open file.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    Access, AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, StatxAttributes, StatxFlags,
    access, fstat, fstatfs, lstat, open, openat, renameat, renameat_with, stat, statat, statfs,
    statx, unlinkat,
};

use rustix::io::retry_on_intr;

use super::Errno;

/// Magic number of nsfs, `statfs(2)`.
pub(crate) const NSFS: i64 = 0x6e73_6673;

/// Magic number of procfs, `statfs(2)`.
pub(crate) const PROCFS: i64 = 0x9fa0;

/// Magic number of tmpfs, `statfs(2)`.
pub(crate) const TMPFS: i64 = 0x0102_1994;

/// Opens a file of any type for reference only (`O_PATH`).
pub(crate) fn open_path(path: impl AsRef<Path>) -> Result<OwnedFd, Errno> {
    open(path.as_ref(), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

/// Opens the entry `name` of `dir` for reference only, without following a link (`O_PATH`, `O_NOFOLLOW`).
pub(crate) fn open_path_at(dir: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

/// Opens the directory above `dir` for reference only (`..`).
pub(crate) fn open_parent(dir: impl AsFd) -> Result<OwnedFd, Errno> {
    openat(dir, "..", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file for reading.
pub(crate) fn open_for_reading(path: impl AsRef<Path>) -> Result<File, Errno> {
    open(path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).map(File::from)
}

/// Opens the null device for reading and writing.
pub(crate) fn open_null() -> Result<OwnedFd, Errno> {
    open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
}

/// Reads from a descriptor once; a signal does not interrupt the call.
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    retry_on_intr(|| rustix::io::read(&fd, &mut *buffer))
}

/// Creates the file `name` in `dir`, mode 0600, for writing (`O_EXCL`).
pub(crate) fn create_new(dir: impl AsFd, name: &str) -> Result<File, Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    openat(dir, name, flags, Mode::RUSR | Mode::WUSR).map(File::from)
}

/// Flags for a file in a directory that another user may change: no link is followed, and no open waits for the other
/// end of a FIFO.
const WARY: OFlags =
    OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::CLOEXEC).union(OFlags::NOCTTY);

/// Opens a file for appending, or creates the file with mode 0600. Follows no link and does not wait for a FIFO.
pub(crate) fn open_for_appending(path: &Path) -> Result<OwnedFd, Errno> {
    let flags = OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE | WARY;
    open(path, flags, Mode::RUSR | Mode::WUSR)
}

/// Opens a file for reading. Follows no link and does not wait for a FIFO.
pub(crate) fn open_unfollowed(path: &Path) -> Result<File, Errno> {
    open(path, OFlags::RDONLY | WARY, Mode::empty()).map(File::from)
}

/// Renames the file `name` of `dir` to `new` in `other`; `EEXIST` if the name is taken (`RENAME_NOREPLACE`).
pub(crate) fn rename_new(
    dir: impl AsFd,
    name: &str,
    other: impl AsFd,
    new: &str,
) -> Result<(), Errno> {
    renameat_with(dir, name, other, new, RenameFlags::NOREPLACE)
}

/// Renames the file `name` of `dir` to `new` in `other`, in the place of what is there.
pub(crate) fn rename_over(
    dir: impl AsFd,
    name: &str,
    other: impl AsFd,
    new: &str,
) -> Result<(), Errno> {
    renameat(dir, name, other, new)
}

/// Removes the file `name` of `dir` (`unlinkat(2)`).
pub(crate) fn unlink(dir: impl AsFd, name: &str) -> Result<(), Errno> {
    unlinkat(dir, name, AtFlags::empty())
}

/// Returns true if this process may execute the file (`access(2)`).
pub(crate) fn is_executable(path: &Path) -> bool {
    access(path, Access::EXEC_OK).is_ok()
}

/// Checks that this process may read the file (`access(2)`).
pub(crate) fn check_readable(path: &str) -> Result<(), Errno> {
    access(path, Access::READ_OK)
}

/// The properties of a file (`stat(2)`).
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileStat(Stat);

impl FileStat {
    /// Reads the properties of an open file.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self, Errno> {
        fstat(fd).map(Self)
    }

    /// Reads the properties of the file at `path`; follows links.
    pub(crate) fn of_path(path: impl AsRef<Path>) -> Result<Self, Errno> {
        stat(path.as_ref()).map(Self)
    }

    /// Reads the properties of the file at `path`; does not follow a link in the last component.
    pub(crate) fn of_unfollowed(path: &Path) -> Result<Self, Errno> {
        lstat(path).map(Self)
    }

    /// Reads the properties of the entry `name` of `dir`; does not follow a link.
    pub(crate) fn of_entry(dir: impl AsFd, name: impl AsRef<Path>) -> Result<Self, Errno> {
        statat(dir, name.as_ref(), AtFlags::SYMLINK_NOFOLLOW).map(Self)
    }

    fn kind(&self) -> FileType {
        FileType::from_raw_mode(self.0.st_mode)
    }

    pub(crate) fn is_file(&self) -> bool {
        self.kind() == FileType::RegularFile
    }

    pub(crate) fn is_dir(&self) -> bool {
        self.kind() == FileType::Directory
    }

    pub(crate) fn is_socket(&self) -> bool {
        self.kind() == FileType::Socket
    }

    pub(crate) fn mode(&self) -> u32 {
        self.0.st_mode
    }

    pub(crate) fn uid(&self) -> u32 {
        self.0.st_uid
    }

    /// Returns true if the file has exactly one name.
    pub(crate) fn has_one_name(&self) -> bool {
        self.0.st_nlink == 1
    }

    /// Returns the size in bytes.
    pub(crate) fn size(&self) -> u64 {
        u64::try_from(self.0.st_size).unwrap_or(0)
    }

    /// Returns the device and the inode number.
    pub(crate) fn id(&self) -> (u64, u64) {
        (self.0.st_dev, self.0.st_ino)
    }
}

/// Returns true if the file is on a filesystem with this magic number (`fstatfs(2)`).
pub(crate) fn is_on(fd: impl AsFd, magic: i64) -> Result<bool, Errno> {
    fstatfs(fd).map(|fs| fs.f_type == magic)
}

/// Returns true if `path` is on a filesystem with this magic number (`statfs(2)`).
pub(crate) fn path_is_on(path: &str, magic: i64) -> Result<bool, Errno> {
    statfs(path).map(|fs| fs.f_type == magic)
}

/// Returns true if `path` is a mount point (`statx(2)`, Linux 5.8); `None` if the kernel cannot tell.
pub(crate) fn is_mount_point(path: &str) -> Option<bool> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::empty()).ok()?;
    let known = found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    known.then(|| found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Returns the id of the mount that an open file is on (`statx(2)`, Linux 5.8).
pub(crate) fn mount_id(fd: impl AsFd) -> Result<u64, Errno> {
    statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map(|found| found.stx_mnt_id)
}

/// Returns the owner of the directory at `path` (`statx(2)` of the owner and type alone); `None` if `path` is no
/// directory.
pub(crate) fn directory_owner(path: &str) -> Option<u32> {
    let found = statx(CWD, path, AtFlags::empty(), StatxFlags::UID | StatxFlags::TYPE).ok()?;
    let kind = FileType::from_raw_mode(found.stx_mode.into());
    (kind == FileType::Directory).then_some(found.stx_uid)
}

/// Reads the numbers among a directory's names, one at a time (`getdents64(2)`). The standard library's `read_dir`
/// panics if a directory does not close.
pub(crate) fn numbers(
    path: &str,
) -> Result<impl Iterator<Item = Result<u32, Errno>> + use<>, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = rustix::fs::Dir::new(open(path, flags, Mode::empty())?)?;
    Ok(entries.filter_map(|entry| match entry {
        Ok(entry) => entry.file_name().to_str().ok()?.parse::<u32>().ok().map(Ok),
        Err(errno) => Some(Err(errno)),
    }))
}

//! Directories and files by descriptor.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;

/// Most calls of openat2(2) while other processes rename or mount: `EAGAIN` each time.
const ATTEMPTS: usize = 128;

/// Purpose of an opened file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// A directory.
    Directory,
    /// A file to read.
    Read,
    /// An existing file to write.
    Write,
}

impl Access {
    fn flags(self) -> OFlags {
        let access = match self {
            Self::Directory => OFlags::DIRECTORY,
            Self::Read => OFlags::RDONLY,
            Self::Write => OFlags::WRONLY,
        };
        // Nonblocking, for a FIFO in place of a kernel file.
        access | OFlags::CLOEXEC | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::NONBLOCK
    }
}

/// Opens the directory `path` (open(2)); the last name may be a link only if `follow`.
pub(crate) fn open_path(path: &Path, follow: bool) -> Result<OwnedFd, Errno> {
    let flags = Access::Directory.flags();
    let flags = if follow { flags - OFlags::NOFOLLOW } else { flags };
    fs::open(path, flags, Mode::empty())
}

/// Opens `path` below `dir`: never outside of `dir`, over a link, or in another mount (openat2(2), Linux 5.6).
pub(crate) fn open_beneath(dir: impl AsFd, path: &Path, access: Access) -> Result<OwnedFd, Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    for _ in 0..ATTEMPTS {
        match fs::openat2(&dir, path, access.flags(), Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

/// Returns the magic number of the filesystem (fstatfs(2)).
pub(crate) fn filesystem(fd: impl AsFd) -> Result<u64, Errno> {
    Ok(u64::try_from(fs::fstatfs(fd)?.f_type).unwrap_or_default())
}

/// Returns the device and the inode number (fstat(2)).
pub(crate) fn id(fd: impl AsFd) -> Result<(u64, u64), Errno> {
    let stat = fs::fstat(fd)?;
    Ok((stat.st_dev, stat.st_ino))
}

/// Returns the id of the mount that `fd` was opened through, as in mountinfo; `None` before Linux 5.8 (statx(2)).
pub(crate) fn mount_id(fd: impl AsFd) -> Result<Option<u64>, Errno> {
    stat_mount_id(fd, Path::new(""), AtFlags::EMPTY_PATH)
}

/// Returns the id of the mount that is at `path` now, without opening anything.
pub(crate) fn mount_id_at(path: &Path) -> Result<Option<u64>, Errno> {
    stat_mount_id(fs::CWD, path, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
}

fn stat_mount_id(dir: impl AsFd, path: &Path, flags: AtFlags) -> Result<Option<u64>, Errno> {
    let stat = fs::statx(dir, path, flags, StatxFlags::MNT_ID)?;
    let known = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok(known.then_some(stat.stx_mnt_id))
}

/// Reads from the file's own position (read(2)).
pub(crate) fn read(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::read(&fd, &mut *buffer))
}

/// Reads at `offset` (pread(2)).
pub(crate) fn pread(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize, Errno> {
    rustix::io::retry_on_intr(|| rustix::io::pread(&fd, &mut *buffer, offset))
}

/// Writes all of `bytes` by one write(2), as kernel files require.
pub(crate) fn write_once(fd: impl AsFd, bytes: &[u8]) -> Result<(), Errno> {
    match rustix::io::retry_on_intr(|| rustix::io::write(&fd, bytes))? {
        written if written < bytes.len() => Err(Errno::IO),
        _ => Ok(()),
    }
}

/// Makes the directory `name` in `dir` (mkdirat(2)).
pub(crate) fn make_dir(dir: impl AsFd, name: &Path) -> Result<(), Errno> {
    fs::mkdirat(dir, name, Mode::from_raw_mode(0o755))
}

/// Removes the empty directory `name` in `dir` (unlinkat(2)).
pub(crate) fn remove_dir(dir: impl AsFd, name: &Path) -> Result<(), Errno> {
    fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
}

/// Calls `each` with the name of each directory in `dir` (getdents64(2)). `dir` loses its position.
pub(crate) fn subdirs(dir: OwnedFd, mut each: impl FnMut(&OsStr)) -> Result<(), Errno> {
    for entry in fs::Dir::new(dir)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if entry.file_type() == fs::FileType::Directory && name != b"." && name != b".." {
            each(OsStr::from_bytes(name));
        }
    }
    Ok(())
}

/// Sets an extended attribute that must not exist yet (fsetxattr(2)).
pub(crate) fn set_attribute(fd: impl AsFd, name: &str, value: &[u8]) -> Result<(), Errno> {
    fs::fsetxattr(fd, name, value, XattrFlags::CREATE)
}

/// Reads an extended attribute of at most `most` bytes; `None` if it does not exist (fgetxattr(2)).
pub(crate) fn attribute(fd: impl AsFd, name: &str, most: usize) -> Result<Option<Vec<u8>>, Errno> {
    let mut value = vec![0; most];
    match fs::fgetxattr(fd, name, value.as_mut_slice()) {
        Ok(length) => {
            value.truncate(length);
            Ok(Some(value))
        }
        Err(Errno::NODATA) => Ok(None),
        Err(errno) => Err(errno),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn openat2_never_leaves_the_directory() {
        let outer = tempfile::tempdir().unwrap();
        let inner = tempfile::tempdir_in(&outer).unwrap();
        #[expect(clippy::disallowed_methods, reason = "links to be refused")]
        for (target, name) in [("/proc", "absolute"), ("..", "up"), (".", "inside")] {
            symlink(target, inner.path().join(name)).unwrap();
        }
        let dir = open_path(inner.path(), false).unwrap();
        let open = |path: &str| open_beneath(&dir, Path::new(path), Access::Directory);
        assert!(open(".").is_ok());
        for (path, errno) in [
            ("..", Errno::XDEV),
            ("/proc", Errno::XDEV),
            ("absolute/self", Errno::LOOP),
            ("up/.", Errno::LOOP),
            ("inside", Errno::NOTDIR),
            ("inside/.", Errno::LOOP),
        ] {
            assert_eq!(open(path).unwrap_err(), errno, "{path}");
        }
        assert!(open_path(&inner.path().join("inside"), false).is_err());
        assert!(open_path(&inner.path().join("inside"), true).is_ok());
    }

    #[test]
    fn openat2_never_enters_a_mount() {
        let root = open_path(Path::new("/"), false).unwrap();
        let error = open_beneath(&root, Path::new("proc"), Access::Directory).unwrap_err();
        assert_eq!(error, Errno::XDEV);
        // A magic link leads out as any link does.
        let own = open_path(Path::new("/proc/self"), true).unwrap();
        assert!(open_beneath(&own, Path::new("fd"), Access::Directory).is_ok());
        assert_eq!(
            open_beneath(&own, Path::new("cwd/."), Access::Directory).unwrap_err(),
            Errno::LOOP
        );
    }

    #[test]
    fn descriptors_are_close_on_exec() {
        let dir = open_path(Path::new("/proc/self"), true).unwrap();
        let file = open_beneath(&dir, Path::new("stat"), Access::Read).unwrap();
        for fd in [&dir, &file] {
            let flags = rustix::io::fcntl_getfd(fd).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        }
    }
}

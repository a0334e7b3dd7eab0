//! Type, owner, mode and flags of inodes.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::sys::stat::{FchmodatFlags, Mode, fchmod, fchmodat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{Gid, Uid, fchown, fchownat};
use rustix::fs::{
    AtFlags as StatFlags, CWD, IFlags, Statx, StatxAttributes, StatxFlags, fgetxattr, fremovexattr,
    ioctl_getflags, ioctl_setflags, statx,
};

use super::names::procfs;
use super::{Errno, Result, errno};

/// Looks at an open descriptor.
pub(crate) fn stat(fd: impl AsFd) -> Result<Statx> {
    ask(fd, "", StatFlags::EMPTY_PATH)
}

/// Looks at `name` in `dir`, a link itself.
pub(crate) fn stat_at(dir: impl AsFd, name: &OsStr) -> Result<Statx> {
    ask(dir, name, StatFlags::SYMLINK_NOFOLLOW)
}

/// Looks at what a path of the caller's leads to, a link itself.
pub(crate) fn stat_path(path: &Path) -> Result<Statx> {
    ask(CWD, path, StatFlags::SYMLINK_NOFOLLOW)
}

fn ask(dir: impl AsFd, path: impl rustix::path::Arg, flags: StatFlags) -> Result<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(dir, path, flags | StatFlags::NO_AUTOMOUNT, wanted).map_err(errno)
}

/// Looks for the flags that forbid removal, renames and writes until `chattr -ia`.
pub(crate) fn is_immutable(stat: &Statx) -> bool {
    stat.stx_attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND)
}

/// Looks for the mark of a mount's top.
pub(crate) fn is_mount_root(stat: &Statx) -> bool {
    stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
}

/// Looks for an extended attribute of any value.
pub(crate) fn has_xattr(fd: impl AsFd, name: &str) -> Result<bool> {
    // Not an empty buffer, for which rustix answers 0 whether the attribute exists or not.
    match fgetxattr(fd, name, &mut [0_u8][..]).map_err(errno) {
        Ok(_) | Err(Errno::ERANGE) => Ok(true),
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// Removes an extended attribute, if there is one.
pub(crate) fn remove_xattr(fd: impl AsFd, name: &str) -> Result<()> {
    match fremovexattr(fd, name).map_err(errno) {
        Err(Errno::ENODATA | Errno::EOPNOTSUPP) => Ok(()),
        answer => answer,
    }
}

pub(crate) fn set_owner(fd: impl AsFd, (uid, gid): (u32, u32)) -> Result<()> {
    fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))
}

/// The same for a handle (`O_PATH`), which fchown(2) refuses.
pub(crate) fn set_owner_of_handle(fd: impl AsFd, (uid, gid): (u32, u32)) -> Result<()> {
    let (uid, gid) = (Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)));
    fchownat(fd, "", uid, gid, AtFlags::AT_EMPTY_PATH)
}

pub(crate) fn set_mode(fd: impl AsFd, mode: u32) -> Result<()> {
    fchmod(fd, Mode::from_bits_truncate(mode))
}

/// The same for a handle (`O_PATH`), which fchmod(2) refuses: the door names this very descriptor.
pub(crate) fn set_mode_of_handle(fd: impl AsFd, mode: u32) -> Result<()> {
    let mode = Mode::from_bits_truncate(mode);
    fchmodat(AT_FDCWD, procfs(fd).as_str(), mode, FchmodatFlags::FollowSymlink)
}

/// Mode 0700: nobody else can open the directory.
pub(crate) fn close_to_others(dir: impl AsFd) -> Result<()> {
    set_mode(dir, 0o700)
}

/// Returns mount flags: read-only, nodev, noexec, nosuid.
pub(crate) fn mount_flags(fd: impl AsFd) -> Result<[bool; 4]> {
    let flags = fstatvfs(fd)?.flags();
    Ok([FsFlags::ST_RDONLY, FsFlags::ST_NODEV, FsFlags::ST_NOEXEC, FsFlags::ST_NOSUID]
        .map(|flag| flags.contains(flag)))
}

/// Lets directories with another project quota be moved into `dir`.
pub(crate) fn forget_project(dir: &OwnedFd) -> Result<()> {
    let flags = ioctl_getflags(dir).map_err(errno)?;
    ioctl_setflags(dir, flags - IFlags::PROJECT_INHERIT).map_err(errno)
}

//! Names in directories: made, moved, removed.

use std::ffi::OsString;
use std::os::fd::{AsFd, AsRawFd as _};
use std::path::{Path, PathBuf};

use nix::NixPath;
use nix::fcntl::{AT_FDCWD, AtFlags, RenameFlags, readlink, readlinkat, renameat2};
use nix::sys::stat::{Mode, SFlag, makedev, mkdirat, mknodat};
use nix::unistd::{UnlinkatFlags, linkat, unlinkat};

use super::{Errno, FileType, Result};

/// Makes a directory, 0700 at most.
pub(crate) fn make_dir(parent: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<()> {
    mkdirat(parent, name, Mode::S_IRWXU)
}

/// Makes a device node or a FIFO (mknodat(2)).
pub(crate) fn make_node(
    parent: impl AsFd,
    name: &(impl NixPath + ?Sized),
    (kind, major, minor): (FileType, u32, u32),
    mode: u32,
) -> Result<()> {
    let kind = match kind {
        FileType::BlockDevice => SFlag::S_IFBLK,
        FileType::Fifo => SFlag::S_IFIFO,
        _ => SFlag::S_IFCHR,
    };
    let number = makedev(major.into(), minor.into());
    mknodat(parent, name, kind, Mode::from_bits_truncate(mode), number)
}

/// Gives an open file a further name (linkat(2) on the descriptor).
pub(crate) fn link(file: impl AsFd, dir: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<()> {
    match linkat(&file, "", &dir, name, AtFlags::AT_EMPTY_PATH) {
        // Without CAP_DAC_READ_SEARCH; the door by way of procfs is open to all.
        Err(Errno::ENOENT) => {
            linkat(AT_FDCWD, procfs(file).as_str(), &dir, name, AtFlags::AT_SYMLINK_FOLLOW)
        }
        answer => answer,
    }
}

/// Removes a name of anything but a directory.
pub(crate) fn unlink(dir: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<()> {
    unlinkat(dir, name, UnlinkatFlags::NoRemoveDir)
}

/// Removes an empty directory.
pub(crate) fn remove_dir(parent: impl AsFd, name: &(impl NixPath + ?Sized)) -> Result<()> {
    unlinkat(parent, name, UnlinkatFlags::RemoveDir)
}

/// Moves a name to one that must be free (`RENAME_NOREPLACE`).
pub(crate) fn rename_new<P: NixPath + ?Sized, Q: NixPath + ?Sized>(
    from: (impl AsFd, &P),
    to: (impl AsFd, &Q),
) -> Result<()> {
    renameat2(from.0, from.1, to.0, to.1, RenameFlags::RENAME_NOREPLACE)
}

/// Exchanges two names of one directory (`RENAME_EXCHANGE`).
pub(crate) fn exchange<P: NixPath + ?Sized>(dir: impl AsFd, one: &P, other: &P) -> Result<()> {
    renameat2(&dir, one, &dir, other, RenameFlags::RENAME_EXCHANGE)
}

/// Reads the target of the link at a path of the caller's.
pub(crate) fn read_link(dir: Option<&std::os::fd::OwnedFd>, path: &Path) -> Result<OsString> {
    match dir {
        Some(dir) => readlinkat(dir, path),
        None => readlink(path),
    }
}

/// Returns the path of an open file on the host; for messages only (readlink(2) of `/proc/self/fd/N`).
pub(crate) fn path_of(fd: impl AsFd) -> PathBuf {
    // Without /proc the message has the descriptor's number and the name.
    readlink(procfs(&fd).as_str())
        .map_or_else(|_| format!("<descriptor {}>", fd.as_fd().as_raw_fd()).into(), PathBuf::from)
}

/// The door by which an open descriptor is named.
pub(super) fn procfs(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

//! Opening: openat2(2) below a held directory, and the few doors that take a path.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat, openat2};
use nix::sys::stat::Mode;

use super::names::procfs;
use super::{Errno, Result};

/// The most attempts of a look-up that renames elsewhere disturb (EAGAIN).
const ATTEMPTS: u32 = 128;

/// Lets no look-up follow a link, leave the directory or cross into another mount.
fn resolve() -> ResolveFlag {
    ResolveFlag::RESOLVE_BENEATH
        | ResolveFlag::RESOLVE_NO_SYMLINKS
        | ResolveFlag::RESOLVE_NO_MAGICLINKS
        | ResolveFlag::RESOLVE_NO_XDEV
}

/// Opens `path` below `dir`; never waits, never becomes the controlling terminal's process.
fn open_beneath(dir: impl AsFd, path: &Path, flags: OFlag, mode: Mode) -> Result<OwnedFd> {
    // O_PATH takes no more than these.
    let always = if flags.contains(OFlag::O_PATH) {
        OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW
    } else {
        OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY
    };
    let how = OpenHow::new().flags(flags | always).mode(mode).resolve(resolve());
    let mut attempt = 1;
    loop {
        match openat2(&dir, path, how) {
            Err(Errno::EAGAIN | Errno::EINTR) if attempt < ATTEMPTS => attempt += 1,
            answer => return answer,
        }
    }
}

/// Opens a file for reading.
pub(crate) fn beneath(dir: impl AsFd, path: &Path) -> Result<OwnedFd> {
    open_beneath(dir, path, OFlag::O_RDONLY, Mode::empty())
}

/// Opens a directory for reading.
pub(crate) fn directory(dir: impl AsFd, path: impl AsRef<Path>) -> Result<OwnedFd> {
    open_beneath(dir, path.as_ref(), OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())
}

/// Opens whatever `name` is, a link itself, only to be looked at (`O_PATH`).
pub(crate) fn handle(dir: impl AsFd, name: &OsStr) -> Result<OwnedFd> {
    open_beneath(dir, name.as_ref(), OFlag::O_PATH, Mode::empty())
}

/// Creates a file without a name on `dir`'s filesystem (`O_TMPFILE`).
pub(crate) fn create_unnamed(dir: impl AsFd, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::O_TMPFILE | OFlag::O_RDWR;
    open_beneath(dir, ".".as_ref(), flags, Mode::from_bits_truncate(mode))
}

/// Creates the file `name`, which must not exist (`O_EXCL`).
pub(crate) fn create_named(dir: impl AsFd, name: &OsStr, mode: u32) -> Result<OwnedFd> {
    let flags = OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR;
    open_beneath(dir, name.as_ref(), flags, Mode::from_bits_truncate(mode))
}

/// The purpose of opening a component of a base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    List,
    /// `O_PATH`, for a directory that may be passed and not listed.
    Pass,
}

fn directory_flags(access: Access) -> OFlag {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    match access {
        Access::List => flags,
        Access::Pass => flags | OFlag::O_PATH,
    }
}

/// The door to a base: opens `/`.
pub(crate) fn root(access: Access) -> Result<OwnedFd> {
    open("/", directory_flags(access), Mode::empty())
}

/// Opens one component below `/`, never `..`; a mount may begin here, so this is no openat2 with `NO_XDEV`.
pub(crate) fn component(dir: impl AsFd, name: &OsStr, access: Access) -> Result<OwnedFd> {
    openat(dir, name, directory_flags(access), Mode::empty())
}

/// The door to a source: opens the regular file at a path of the caller's.
pub(crate) fn source_file(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    open(path, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The same for a device node, of which no driver hears (`O_PATH`).
pub(crate) fn source_handle(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
}

/// The door to the table of mounts: one fixed name.
pub(crate) const MOUNTINFO: &str = "/proc/thread-self/mountinfo";

pub(crate) fn mountinfo() -> Result<File> {
    open(MOUNTINFO, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

/// Opens the FIFO that a handle holds: the door names this very descriptor, and no name in a directory.
pub(crate) fn reopen_fifo(handle: impl AsFd, write: bool) -> Result<OwnedFd> {
    let access = if write { OFlag::O_RDWR } else { OFlag::O_RDONLY };
    let flags = access | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
    open(procfs(handle).as_str(), flags, Mode::empty())
}

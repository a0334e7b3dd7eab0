//! Directories of the caller's own making.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use crate::error::{Error, Result};
use crate::inode::Facts;
use crate::sys::{self, Errno, FileType};

/// Opens the directory that the caller has just made. Under a umask that took the owner's own bits, a caller without
/// `CAP_DAC_OVERRIDE` sets them first.
pub(crate) fn open_new_dir(parent: impl AsFd, name: &OsStr) -> std::result::Result<OwnedFd, Errno> {
    match sys::directory(&parent, name) {
        Err(Errno::EACCES) => {}
        answer => return answer,
    }
    let handle = sys::handle(&parent, name)?;
    let facts = Facts::of_open(&handle)?;
    if facts.kind != FileType::Directory || facts.uid != sys::effective_uid() {
        return Err(Errno::EACCES);
    }
    sys::set_mode_of_handle(&handle, 0o700)?;
    let dir = sys::directory(&parent, name)?;
    match Facts::of_open(&dir)?.id == facts.id {
        true => Ok(dir),
        false => Err(Errno::ESTALE),
    }
}

/// Makes a directory, 0755 whatever the umask is, in one that has been checked: whole or not at all. `None` if another
/// process made it first; then it is checked like any other.
pub(crate) fn make_dir(
    operation: &'static str,
    path: &std::path::Path,
    parent: impl AsFd,
    name: &OsStr,
) -> Result<Option<OwnedFd>> {
    let failed = |errno| Error::os(operation, path, errno);
    match sys::make_dir(&parent, name) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    }
    open_new_dir(&parent, name)
        .and_then(|made| sys::set_mode(&made, 0o755).map(|()| Some(made)))
        .map_err(|errno| failed(errno).after(unmake_dir(path, &parent, name)))
}

/// Takes back a directory that was just made. A directory that is in use by now stays.
pub(crate) fn unmake_dir(path: &std::path::Path, parent: impl AsFd, name: &OsStr) -> Result<()> {
    match sys::remove_dir(parent, name) {
        Ok(()) | Err(Errno::ENOENT | Errno::ENOTEMPTY) => Ok(()),
        Err(errno) => Err(Error::os("remove directory", path, errno)),
    }
}

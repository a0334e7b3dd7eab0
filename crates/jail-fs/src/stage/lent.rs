//! A persistent file in a tree, found by its receipt.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use cap_std::fs::Dir;

use super::receipt::Receipt;
use crate::base::refused_at;
use crate::error::Result;
use crate::inode::Facts;
use crate::sys::{self, Errno, FileType};

const OPERATION: &str = "open persistent file";

/// A regular file, opened, and the path.
pub(super) struct Lent {
    pub(super) fd: OwnedFd,
    pub(super) path: PathBuf,
}

/// Opens the recorded inode by the name in the tree.
pub(super) fn lent_here(dir: &Dir, receipt: &Receipt) -> Result<Option<Lent>> {
    let name = receipt.name.as_os_str();
    let path = || sys::path_of(dir).join(name);
    let is_it = |facts: &Facts| facts.id == receipt.inode && facts.kind == FileType::RegularFile;
    let failed = |errno| refused_at(OPERATION, path(), errno);
    // Looked at before it is opened for reading: anything may have the name.
    match sys::handle(dir, name) {
        Ok(fd) if is_it(&Facts::of(&fd)?) => {}
        Ok(_) | Err(Errno::ENOENT | Errno::ELOOP | Errno::EXDEV) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    }
    let fd = sys::beneath(dir, name.as_ref()).map_err(failed)?;
    let facts = Facts::of(&fd)?;
    Ok(is_it(&facts).then(|| Lent { fd, path: path() }))
}

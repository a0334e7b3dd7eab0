//! Small files of our own making.

use std::io::Write as _;

use crate::error::{Result, number};
use crate::inode::InodeId;
use crate::name::Name;
use crate::new_file::NewFile;
use crate::owner::Owner;
use crate::place::Place;

/// Writes `bytes` to the fresh file `name` in `dir`, with this owner and mode: whole or not at all.
///
/// # Errors
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) where `name` is taken, which is never opened.
///
/// # Privileges
/// `CAP_CHOWN` where `owner` is not the caller.
pub fn write<'a>(
    dir: impl Into<Place<'a>>,
    name: &Name,
    bytes: &[u8],
    owner: Owner,
    mode: u32,
) -> Result<InodeId> {
    let file = NewFile::create(dir.into(), name, owner, mode)?;
    file.file().write_all(bytes).map_err(|error| {
        file.failed("write", number(&error)).because(format!("it is {} bytes long", bytes.len()))
    })?;
    let inode = file.inode();
    file.finish()?;
    Ok(inode)
}

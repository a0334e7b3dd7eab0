//! Small files of the caller's own content.

use std::io::Write as _;

use super::new_file::NewFile;
use super::staging_dir::StagingDir;
use crate::error::Result;
use crate::inode::InodeId;
use crate::name::Name;
use crate::owner::Owner;
use crate::sys;

/// Writes `bytes` to the fresh file `name` in `dir`, with this owner and mode: whole or not at all.
///
/// # Errors
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for a taken name, which is never opened;
/// [`Limit`](crate::ErrorKind::Limit) for more bytes than `RLIMIT_FSIZE`.
///
/// # Privileges
/// `CAP_CHOWN` if `owner` is not the caller.
pub fn write<'a>(
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    bytes: &[u8],
    owner: Owner,
    mode: u32,
) -> Result<InodeId> {
    let size = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    let file = NewFile::create(dir.into(), name, (owner, mode), size)?;
    if let Err(error) = file.file().write_all(bytes) {
        let error = file
            .failed("write", sys::number(&error))
            .because(format!("it is {} bytes long", bytes.len()));
        return Err(file.abandon(error));
    }
    let inode = file.inode();
    file.finish()?;
    Ok(inode)
}

//! Small files of our own making.

use std::io::Write as _;

use cap_std::fs::Dir;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::fsync;

use crate::error::{Error, Result, number};
use crate::fresh::take_back;
use crate::inode::InodeId;
use crate::name::Name;
use crate::new_file::NewFile;
use crate::options::CopyOptions;
use crate::owner::Owner;
use crate::place::Place;
use crate::unique::unique;

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
    fill(&file, bytes)?;
    let inode = file.inode();
    file.finish()?;
    Ok(inode)
}

/// The same in the place of whatever file has the `name`, by one rename (`renameat2(2)`): a reader sees the old
/// content or the new, never a part. With fsync in `options`, also after a power cut.
///
/// # Errors
/// What the kernel answers, for example where `name` is a directory.
///
/// # Privileges
/// As [`write()`].
pub fn replace(
    dir: &Dir,
    name: &Name,
    bytes: &[u8],
    owner: Owner,
    mode: u32,
    options: &CopyOptions<'_>,
) -> Result<InodeId> {
    let failed = |errno| Error::at("replace", dir, name, errno);
    let aside = unique(".new-", name).map_err(failed)?;
    let file = NewFile::create(dir.into(), &aside, owner, mode)?;
    fill(&file, bytes)?;
    if options.wants_fsync() {
        fsync(file.file()).map_err(failed)?;
    }
    let inode = file.inode();
    file.finish()?;
    renameat2(dir, aside.as_os_str(), dir, name.as_os_str(), RenameFlags::empty())
        .inspect_err(|_| take_back(dir, &aside))
        .map_err(failed)?;
    if options.wants_fsync() {
        fsync(dir).map_err(failed)?;
    }
    Ok(inode)
}

fn fill(file: &NewFile<'_>, bytes: &[u8]) -> Result<()> {
    file.file().write_all(bytes).map_err(|error| {
        file.failed("write", number(&error)).because(format!("it is {} bytes long", bytes.len()))
    })
}

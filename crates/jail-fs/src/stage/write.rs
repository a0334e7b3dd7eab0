//! Small files of our own making.

use std::fs::File;
use std::io::Write as _;

use cap_std::fs::Dir;
use nix::fcntl::{RenameFlags, renameat2};
use nix::unistd::fsync;

use crate::error::{Error, Result, number};
use crate::fresh::{Fresh, link, take_back};
use crate::inode::InodeId;
use crate::name::Name;
use crate::options::CopyOptions;
use crate::owner::Owner;
use crate::unique::unique;

/// Writes `bytes` to the fresh file `name` in `dir`, with this owner and mode: whole or not at all.
///
/// # Errors
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) where `name` is taken, which is never opened.
///
/// # Privileges
/// `CAP_CHOWN` where `owner` is not the caller.
pub fn write(dir: &Dir, name: &Name, bytes: &[u8], owner: Owner, mode: u32) -> Result<InodeId> {
    let (file, inode) = nameless((dir, name), bytes, owner, mode)?;
    link(&file, dir, name).map_err(|errno| Error::at("create file", dir, name, errno))?;
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
    let (file, inode) = nameless((dir, name), bytes, owner, mode)?;
    let failed = |errno| Error::at("replace", dir, name, errno);
    if options.wants_fsync() {
        fsync(&file).map_err(failed)?;
    }
    let aside = unique(".new-", name)?;
    link(&file, dir, &aside).map_err(failed)?;
    renameat2(dir, aside.as_os_str(), dir, name.as_os_str(), RenameFlags::empty())
        .inspect_err(|_| take_back(dir, &aside))
        .map_err(failed)?;
    if options.wants_fsync() {
        fsync(dir).map_err(failed)?;
    }
    Ok(inode)
}

fn nameless(
    (dir, name): (&Dir, &Name),
    bytes: &[u8],
    owner: Owner,
    mode: u32,
) -> Result<(File, InodeId)> {
    let fresh = Fresh::file(dir, mode)?;
    fresh.give(owner, mode)?;
    let inode = fresh.id();
    let mut file = fresh.into_file();
    file.write_all(bytes).map_err(|error| Error::at("write", dir, name, number(&error)))?;
    Ok((file, inode))
}

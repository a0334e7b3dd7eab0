//! An artifact that many trees share.

use super::artifact::Artifact;
use super::options::CopyOptions;
use super::private_copy::private_copy;
use super::receipt::{Fallback, Receipt, Strategy};
use super::staging_dir::StagingDir;
use super::sync_name::sync_name;
use crate::error::{Error, Result};
use crate::inode::Facts;
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno};

/// Stages `source` as `name` in `dir`, to be read by `reader` and written by nobody; the source is never changed.
///
/// The ladder is [`HardLink`](Strategy::HardLink) → a private copy, the caller's, 0440 for `reader`'s group. A source
/// is linked only if it is root's, writable by nobody else, readable by `reader`, and without set-id bits or file
/// capabilities. The receipt names the step and the reason.
///
/// # Errors
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for a taken name; else as [`private`](crate::private).
///
/// # Privileges
/// `CAP_CHOWN` for the copy if `reader`'s group is not one of the caller's.
pub fn read_only<'a>(
    source: &Artifact,
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    reader: Owner,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    let copy = (Owner::new(Owner::caller().uid(), reader.gid())?, 0o440);
    let reader = (Reader::One(reader), copy);
    link_or_copy("stage read-only", source, (dir.into(), name), reader, options)
}

/// The processes that are to read a shared file.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reader {
    One(Owner),
    Everybody,
}

/// Links the source if `reader` may read the source and nobody may write; else copies, with the copy's owner and mode.
pub(super) fn link_or_copy(
    operation: &'static str,
    source: &Artifact,
    (place, name): (StagingDir<'_>, &Name),
    (reader, copy): (Reader, (Owner, u32)),
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    let dir = place.dir();
    source.expect_file(operation)?;
    let fallback = match may_be_shared(source, reader) {
        Err(fallback) => fallback,
        Ok(()) => match sys::link(source, dir, name.as_os_str()) {
            Ok(()) => {
                sync_name(dir, name, options)?;
                return Ok(Receipt {
                    name: name.clone(),
                    strategy: Strategy::HardLink,
                    fallback: None,
                    bytes_copied: 0,
                    inode: source.stamp().inode,
                    source: source.stamp(),
                    loan: None,
                });
            }
            Err(Errno::EXDEV) => Fallback::OtherFilesystem,
            Err(Errno::EMLINK) => Fallback::TooManyLinks,
            Err(Errno::EPERM) => Fallback::LinkRefused,
            Err(Errno::EOPNOTSUPP) => Fallback::NotSupported,
            Err(errno) => return Err(Error::at(operation, dir, name, errno)),
        },
    };
    private_copy(source, (place, name), copy, options, Some(fallback))
}

/// Rule 2 of the threat model.
fn may_be_shared(source: &Artifact, reader: Reader) -> std::result::Result<(), Fallback> {
    let facts = source.facts();
    if facts.uid != 0 {
        Err(Fallback::NotRoots)
    } else if facts.mode & 0o022 != 0 {
        Err(Fallback::WritableByOthers)
    } else if !readable(facts, reader) {
        Err(Fallback::NotReadable)
    } else if is_privileged(source) {
        Err(Fallback::Privileged)
    } else {
        Ok(())
    }
}

/// By mode alone: an ACL could only refuse the reader what this allows, and is not asked.
fn readable(facts: &Facts, reader: Reader) -> bool {
    match reader {
        Reader::One(reader) => facts.rights(reader) & 0o4 != 0,
        // A reader in the file's group has the group's rights alone.
        Reader::Everybody => facts.mode & 0o044 == 0o044,
    }
}

/// Set-id bits and capabilities count when a file is executed, which no one can do without an x bit.
fn is_privileged(source: &Artifact) -> bool {
    let mode = source.facts().mode;
    mode & 0o6000 != 0
        || (mode & 0o111 != 0 && sys::has_xattr(source, "security.capability") != Ok(false))
}

//! Files of a jail, copied out by descriptor. The VM may have put anything under any name, and may still write.

use std::ops::RangeInclusive;

use jail_fs::{Artifact, CopyOptions, Dir, InodeId, Name, StagingDir};

use super::digest;
use super::manifest::SnapshotFile;
use crate::error::{Error, ErrorKind, Result};

const OPERATION: &str = "copy the snapshot out of the jail";

/// A file in the jail, and the expected properties.
#[derive(Debug, Clone)]
pub(super) enum Wanted {
    /// A file that the VMM has written: with one name, and a size in this range.
    Written(RangeInclusive<u64>),
    /// The very inode that was staged.
    Staged(InodeId),
}

/// The use of the copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Copied {
    /// A fresh inode: the VMM may have the source open for writing.
    Fresh,
    /// A hard link, if the file is root's and nobody can write to the file.
    Shared,
}

/// Copies the file `name` of the jail's root to `to`.
///
/// # Errors
/// [`Untrusted`](ErrorKind::Untrusted) for a link, a fifo, a device, a file with another name elsewhere, of an unexpected
/// size, or another inode than was staged.
pub(super) fn harvest(
    (root, name): (&Dir, &str),
    wanted: &Wanted,
    copied: Copied,
    (place, to): (StagingDir<'_>, &str),
) -> Result<u64> {
    let failed = |error| Error::files(OPERATION, error);
    let source = Artifact::open_in(root, &Name::try_from(name)?).map_err(failed)?;
    let size = source.stamp().size;
    let because = match wanted {
        Wanted::Written(_) if source.names() != 1 => {
            Some(format!("it has {} names", source.names()))
        }
        Wanted::Written(sizes) if !sizes.contains(&size) => {
            Some(format!("it has {size} bytes, {} to {} are expected", sizes.start(), sizes.end()))
        }
        Wanted::Staged(inode) if source.stamp().inode != *inode => {
            Some(format!("it is inode {}, {inode} was staged", source.stamp().inode))
        }
        _ => None,
    };
    if let Some(because) = because {
        return Err(Error::new(ErrorKind::Untrusted, OPERATION)
            .path(source.path())
            .because(because)
            .hinted("The VM has changed the file, so that no snapshot of the VM can be taken."));
    }
    let options = CopyOptions::new().zeroes_to_holes(true);
    let to = Name::try_from(to)?;
    let receipt = match copied {
        Copied::Fresh => jail_fs::archive(&source, place, &to, &options),
        Copied::Shared => jail_fs::share(&source, place, &to, &options),
    };
    receipt.map_err(failed)?;
    Ok(size)
}

/// Makes the manifest's entry of the copy `name` in `dir`.
pub(super) fn entry(
    dir: &Dir,
    name: &str,
    path: String,
    size: u64,
    checksums: bool,
) -> Result<SnapshotFile> {
    let sha256 = match checksums {
        true => {
            let copy = Artifact::open_in(dir, &Name::try_from(name)?)
                .map_err(|error| Error::files(OPERATION, error))?;
            Some(digest::sha256(&copy)?)
        }
        false => None,
    };
    Ok(SnapshotFile { path, size, sha256 })
}

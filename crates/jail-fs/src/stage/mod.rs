//! Bringing content into a tree, one verb a file.

mod block_device;
mod persistent;
mod private;
mod read_only;
mod return_persistent;
mod write;

use std::os::fd::AsFd;

use nix::unistd::fsync;

pub use self::block_device::{Access, block_device};
pub use self::persistent::persistent;
pub use self::private::private;
pub use self::read_only::read_only;
pub use self::return_persistent::return_persistent;
pub use self::write::write;
use crate::artifact::Artifact;
use crate::copy::{Filled, fill, so_far};
use crate::error::{Error, ErrorKind, Result};
use crate::fresh::take_back;
use crate::name::Name;
use crate::new_file::NewFile;
use crate::options::CopyOptions;
use crate::owner::Owner;
use crate::place::Place;
use crate::receipt::{Fallback, Receipt};

/// A whole copy under `name`, or nothing.
fn copy(
    source: &Artifact,
    (place, name): (Place<'_>, &Name),
    (owner, mode): (Owner, u32),
    options: &CopyOptions<'_>,
    instead_of_link: Option<Fallback>,
) -> Result<Receipt> {
    let file =
        NewFile::create(place, name, owner, mode).map_err(|error| how_far(error, source, 0))?;
    let inode = file.inode();
    let Filled { strategy, fallback, copied } = fill(source, file.file(), options)?;
    file.finish()
        .and_then(|()| settle(place.dir(), name, options))
        .map_err(|error| how_far(error, source, copied))?;
    Ok(Receipt {
        name: name.clone(),
        strategy,
        fallback: instead_of_link.or(fallback),
        bytes_copied: copied,
        inode,
        source: source.stamp(),
        loan: None,
    })
}

/// Adds how far the copy got, where it is the disk that failed.
fn how_far(error: Error, source: &Artifact, copied: u64) -> Error {
    match error.kind() {
        ErrorKind::NoSpace | ErrorKind::Io => error.because(so_far(source, copied)),
        _ => error,
    }
}

/// The new name on the disk too, where that was asked for; if that fails, it goes again.
fn settle(dir: impl AsFd, name: &Name, options: &CopyOptions<'_>) -> Result<()> {
    if options.wants_fsync() {
        fsync(&dir)
            .inspect_err(|_| take_back(&dir, name))
            .map_err(|errno| Error::at("write to the disk the name", &dir, name, errno))?;
    }
    Ok(())
}

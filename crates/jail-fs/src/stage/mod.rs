//! Bringing content into a tree, one verb a file.

mod block_device;
mod persistent;
mod private;
mod read_only;
mod write;

use std::os::fd::AsFd;

use cap_std::fs::Dir;
use nix::unistd::fsync;

pub use self::block_device::{Access, block_device};
pub use self::persistent::persistent;
pub use self::private::private;
pub use self::read_only::read_only;
pub use self::write::{replace, write};
use crate::artifact::Artifact;
use crate::copy::{Filled, fill};
use crate::error::{Error, Result};
use crate::fresh::{Fresh, link, take_back};
use crate::name::Name;
use crate::options::CopyOptions;
use crate::owner::Owner;
use crate::receipt::{Fallback, Receipt};

/// A whole copy under `name`, or nothing: built without a name, linked when it is done.
fn copy(
    source: &Artifact,
    (dir, name): (&Dir, &Name),
    (owner, mode): (Owner, u32),
    options: &CopyOptions<'_>,
    instead_of_link: Option<Fallback>,
) -> Result<Receipt> {
    let fresh = Fresh::file(dir, mode)?;
    fresh.give(owner, mode)?;
    let inode = fresh.id();
    let file = fresh.into_file();
    let Filled { strategy, fallback, copied } = fill(source, &file, options)?;
    link(&file, dir, name).map_err(|errno| Error::at("create file", dir, name, errno))?;
    settle(dir, name, options)?;
    Ok(Receipt {
        name: name.clone(),
        strategy,
        fallback: instead_of_link.or(fallback),
        bytes_copied: copied,
        inode,
        source: source.stamp(),
    })
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

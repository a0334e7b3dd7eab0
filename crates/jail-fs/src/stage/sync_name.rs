//! Names that survive a power cut.

use std::os::fd::AsFd;

use super::new_inode::take_back;
use super::options::CopyOptions;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::sys;

/// Writes the new name to the disk too, if `options` ask for that (`fsync(2)`); if that fails, the name is removed again.
pub(crate) fn sync_name(dir: impl AsFd, name: &Name, options: &CopyOptions<'_>) -> Result<()> {
    if options.wants_fsync() {
        sys::sync(&dir).map_err(|errno| {
            Error::at("write to the disk the name", &dir, name, errno).after(take_back(&dir, name))
        })?;
    }
    Ok(())
}

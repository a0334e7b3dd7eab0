//! Whole copies, or nothing.

use super::artifact::Artifact;
use super::copy::{Filled, fill, so_far};
use super::new_file::NewFile;
use super::options::CopyOptions;
use super::receipt::{Fallback, Receipt};
use super::staging_dir::StagingDir;
use super::sync_name::sync_name;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;
use crate::owner::Owner;
use crate::sys;

/// Copies `source` to the fresh file `name` in `place`.
pub(crate) fn private_copy(
    source: &Artifact,
    (place, name): (StagingDir<'_>, &Name),
    given: (Owner, u32),
    options: &CopyOptions<'_>,
    instead_of_link: Option<Fallback>,
) -> Result<Receipt> {
    let file = NewFile::create(place, name, given, source.stamp().size)
        .map_err(|error| how_far(error, source, 0))?;
    let inode = file.inode();
    let Filled { strategy, fallback, copied } = match fill(source, file.file(), options) {
        Ok(filled) => filled,
        Err(error) => {
            // Full is the filesystem that is written to, whichever file the call was about.
            let is_full = matches!(error.kind(), ErrorKind::NoSpace | ErrorKind::Limit);
            let error =
                if is_full { error.on(sys::path_of(place.dir()).join(name)) } else { error };
            return Err(file.abandon(error));
        }
    };
    file.finish()
        .and_then(|()| sync_name(place.dir(), name, options))
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

/// Adds how far the copy got if the disk failed.
fn how_far(error: Error, source: &Artifact, copied: u64) -> Error {
    match error.kind() {
        ErrorKind::NoSpace | ErrorKind::Io => error.because(so_far(source, copied)),
        _ => error,
    }
}

//! An artifact that every reader shares.

use super::archive::MODE;
use super::artifact::Artifact;
use super::options::CopyOptions;
use super::read_only::{Reader, link_or_copy};
use super::receipt::Receipt;
use super::staging_dir::StagingDir;
use crate::error::Result;
use crate::name::Name;
use crate::owner::Owner;

/// Stages `source` as `name` in `dir`, to be read by everybody who can reach the file and written by nobody.
///
/// The ladder is that of [`read_only`](crate::read_only): a hard link if the source is root's, writable by nobody else and
/// readable by everybody; else the copy of an [`archive`](crate::archive).
///
/// # Errors
/// As [`read_only`](crate::read_only).
pub fn share<'a>(
    source: &Artifact,
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    let copy = (Owner::caller(), MODE);
    link_or_copy("share", source, (dir.into(), name), (Reader::Everybody, copy), options)
}

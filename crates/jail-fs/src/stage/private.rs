//! A writable artifact of the tree's own.

use super::artifact::Artifact;
use super::options::CopyOptions;
use super::private_copy::private_copy;
use super::receipt::Receipt;
use super::staging_dir::StagingDir;
use crate::error::Result;
use crate::name::Name;
use crate::owner::Owner;

/// Stages a private, writable copy of `source` as `name` in `dir`: a fresh inode, `owner`'s, 0600, without the source's
/// mode, extended attributes or ACL.
///
/// The ladder is [`Reflink`](crate::Strategy::Reflink) → [`SparseCopy`](crate::Strategy::SparseCopy); the receipt names
/// the step. In a directory that others may be at work in the file is built without a name (`O_TMPFILE`) and linked when
/// it is whole; in a [`StagedDir`](crate::StagedDir) it has its name from the start (`O_EXCL`). A failure leaves
/// nothing, or names what could not be removed.
///
/// # Errors
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) for a taken name, which is never opened;
/// [`SourceChanged`](crate::ErrorKind::SourceChanged); [`NoSpace`](crate::ErrorKind::NoSpace) with the destination and
/// the bytes copied; [`Limit`](crate::ErrorKind::Limit) for a source larger than `RLIMIT_FSIZE`;
/// [`Cancelled`](crate::ErrorKind::Cancelled); [`Untrusted`](crate::ErrorKind::Untrusted) for a block device, or a
/// source with content after its size, as on procfs.
///
/// # Privileges
/// `CAP_CHOWN` if `owner` is not the caller.
pub fn private<'a>(
    source: &Artifact,
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    owner: Owner,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    source.expect_file("stage privately")?;
    private_copy(source, (dir.into(), name), (owner, 0o600), options, None)
}

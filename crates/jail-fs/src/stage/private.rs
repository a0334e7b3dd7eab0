//! A writable artifact of the tree's own.

use super::copy;
use crate::artifact::Artifact;
use crate::error::Result;
use crate::name::Name;
use crate::options::CopyOptions;
use crate::owner::Owner;
use crate::place::Place;
use crate::receipt::Receipt;

/// Stages a private, writable copy of `source` as `name` in `dir`: a fresh inode, `owner`'s, 0600, without the source's
/// mode, extended attributes or ACL.
///
/// The ladder is [`Reflink`](crate::Strategy::Reflink) → [`SparseCopy`](crate::Strategy::SparseCopy); the receipt
/// says which it was. In a directory where others may be the file is built without a name (`O_TMPFILE`) and linked when
/// it is whole; in a [`StagedDir`](crate::StagedDir) it has its name from the start (`O_EXCL`). Whatever fails, nothing
/// is left.
///
/// # Errors
/// [`AlreadyExists`](crate::ErrorKind::AlreadyExists) where `name` is taken, which is never opened;
/// [`SourceChanged`](crate::ErrorKind::SourceChanged); [`NoSpace`](crate::ErrorKind::NoSpace) with how far it got;
/// [`Cancelled`](crate::ErrorKind::Cancelled); [`Untrusted`](crate::ErrorKind::Untrusted) for a block device.
///
/// # Privileges
/// `CAP_CHOWN` where `owner` is not the caller.
pub fn private<'a>(
    source: &Artifact,
    dir: impl Into<Place<'a>>,
    name: &Name,
    owner: Owner,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    source.expect_file("stage privately")?;
    copy(source, (dir.into(), name), (owner, 0o600), options, None)
}

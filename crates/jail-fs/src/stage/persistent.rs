//! A disk that outlives the tree.

use cap_std::fs::Dir;

use super::artifact::Artifact;
use super::new_inode::{change_owner_failed, take_back};
use super::options::CopyOptions;
use super::receipt::{Loan, Receipt, Strategy};
use super::sync_name::sync_name;
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{ACL, Facts};
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno};

/// Stages the very file `source` as `name` in `dir`, to be written through (`linkat(2)`).
///
/// The file has no other name before and exactly two names after: that is what makes `name` the only user, whichever
/// launcher asks and whoever has died since. With `owner` the file changes owner, by its descriptor: the explicit request without
/// which no file that was there before is ever given away. The receipt's loan records the owner and the mode before,
/// for [`return_persistent`](crate::return_persistent).
///
/// # Errors
/// [`Busy`](ErrorKind::Busy) for a file with a second name, as in another tree; [`CrossDevice`](ErrorKind::CrossDevice) where file and
/// tree are not on one mount; [`Untrusted`](ErrorKind::Untrusted) for a file with set-id bits or an ACL, or
/// whose owner is neither root, nor the caller, nor `owner`; [`AlreadyExists`](ErrorKind::AlreadyExists).
///
/// # Privileges
/// `CAP_CHOWN` where the owner changes.
pub fn persistent(
    source: &Artifact,
    dir: &Dir,
    name: &Name,
    owner: Option<Owner>,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    let operation = "stage persistently";
    source.expect_file(operation)?;
    let facts = Facts::of(source)?;
    expect_names(1, &facts, source, operation)?;
    let change = owner.filter(|owner| !facts.owner_is(*owner));
    if change.is_some() {
        may_change_owner(source, &facts, operation)?;
    }
    let path = std::path::absolute(source.path())
        .map_err(|error| source.failed(operation, sys::number(&error)))?;
    sys::link(source, dir, name.as_os_str()).map_err(|errno| match errno {
        Errno::EXDEV => source
            .failed(operation, errno)
            .because("the tree is on another filesystem or mount")
            .hinted(
                "Keep the disk on the filesystem and mount of the tree; a copy would not persist.",
            ),
        _ => Error::at(operation, dir, name, errno),
    })?;
    // Of two that link at the same time at least one counts three names.
    Facts::of(source)
        .and_then(|now| expect_names(2, &now, source, operation))
        .map_err(|error| error.after(take_back(dir, name)))?;
    sync_name(dir, name, options)?;
    // Last, for it is not taken back. The same descriptor that was checked.
    if let Some(owner) = change {
        sys::set_owner(source, (owner.uid(), owner.gid())).map_err(|errno| {
            change_owner_failed(dir, name, owner, errno)
                .on(source.path())
                .after(take_back(dir, name))
        })?;
    }
    Ok(Receipt {
        name: name.clone(),
        strategy: Strategy::PersistentLink,
        fallback: None,
        bytes_copied: 0,
        inode: facts.id,
        source: facts.stamp(),
        loan: change.map(|user| Loan::new(user, &facts, path)),
    })
}

/// Checks how many names the file has: 1 where no tree has it, 2 where this one alone has it.
fn expect_names(
    names: u32,
    facts: &Facts,
    source: &Artifact,
    operation: &'static str,
) -> Result<()> {
    if facts.nlink == names {
        return Ok(());
    }
    if facts.nlink == 0 {
        return Err(Error::new(ErrorKind::NotFound, operation, source.path())
            .because("its last name was removed after it was opened"));
    }
    Err(Error::new(ErrorKind::Busy, operation, source.path())
        .because(format!("it has {} names: another tree may have it", facts.nlink))
        .hinted("Remove the tree that has it, or its other names."))
}

fn may_change_owner(source: &Artifact, facts: &Facts, operation: &'static str) -> Result<()> {
    let refuse = |because, hint| {
        Err(Error::new(ErrorKind::Untrusted, operation, source.path())
            .because(because)
            .hinted(hint))
    };
    if facts.mode & 0o6000 != 0 {
        return refuse(
            format!("it has set-id bits (mode {:04o})", facts.mode),
            "Remove the bits: chmod ug-s.",
        );
    }
    // A user that the ACL names could go on reading and writing beside the new owner.
    if sys::has_xattr(source, ACL).map_err(|errno| source.failed(operation, errno))? {
        return refuse("it has an ACL".to_owned(), "Remove the ACL: setfacl -b.");
    }
    if facts.uid != 0 && facts.uid != Owner::caller().uid() {
        return refuse(
            format!("it belongs to uid {}", facts.uid),
            "Chown the file to root first, if the tree may have it.",
        );
    }
    Ok(())
}

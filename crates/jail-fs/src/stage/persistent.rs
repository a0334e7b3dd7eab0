//! A disk that outlives the tree.

use std::os::fd::AsFd;
use std::path::Path;

use cap_std::fs::Dir;

use super::artifact::Artifact;
use super::lent::{Lent, lent_here};
use super::new_inode::{change_owner_failed, take_back};
use super::options::CopyOptions;
use super::receipt::{Loan, Receipt, Strategy};
use super::sync_name::sync_name;
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{ACL, Facts};
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno};

/// Stages the very file `source` as `name` in `dir`, to be written through: [`link_persistent`], then
/// [`lend_persistent`].
///
/// If this process dies after this call and before the receipt is stored, nobody can give the file back to its owner. Use the two
/// calls, and store the receipt between them, if that matters.
///
/// # Errors
/// As the two calls.
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
    let receipt = link_persistent(source, dir, name, owner, options)?;
    lend_persistent(dir, &receipt).map_err(|error| error.after(take_back(dir, name)))?;
    Ok(receipt)
}

/// Links the very file `source` as `name` in `dir` (`linkat(2)`), and checks that the file may be lent to `owner`.
///
/// The file has no other name before and exactly two names after: that is what makes `name` the only user, whichever
/// launcher asks and whoever has died since. The file keeps its owner. If `owner` is another, the receipt's loan records the owner and
/// the mode, for [`lend_persistent`] and for [`return_persistent`](crate::return_persistent).
///
/// # Errors
/// [`Busy`](ErrorKind::Busy) for a file with a second name, as in another tree; [`CrossDevice`](ErrorKind::CrossDevice) where file and
/// tree are not on one mount; [`Untrusted`](ErrorKind::Untrusted) for a file with set-id bits or an ACL, or
/// whose owner is neither root, nor the caller, nor `owner`; [`AlreadyExists`](ErrorKind::AlreadyExists).
pub fn link_persistent(
    source: &Artifact,
    dir: &Dir,
    name: &Name,
    owner: Option<Owner>,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    let operation = "stage persistently";
    source.expect_file(operation)?;
    let facts = Facts::of(source)?;
    expect_names(1, &facts, source.path(), operation)?;
    let change = owner.filter(|owner| !facts.owner_is(*owner));
    if change.is_some() {
        may_change_owner(source, &facts, source.path(), operation)?;
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
        .and_then(|now| expect_names(2, &now, source.path(), operation))
        .map_err(|error| error.after(take_back(dir, name)))?;
    sync_name(dir, name, options)?;
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

/// Gives the file that [`link_persistent`] staged into `dir` to the user of the receipt's loan (`fchown(2)`): the explicit request
/// without which no file that was there before is ever given away. Does nothing if the receipt has no loan, or if the user
/// has the file.
///
/// Store the receipt first. [`return_persistent`](crate::return_persistent) undoes this call, and does nothing harmful if this call was
/// never made.
///
/// # Errors
/// [`Replaced`](ErrorKind::Replaced) if `dir` does not have the file under the receipt's name;
/// [`Busy`](ErrorKind::Busy) and [`Untrusted`](ErrorKind::Untrusted) as [`link_persistent`]: the file is checked again.
///
/// # Privileges
/// `CAP_CHOWN`.
pub fn lend_persistent(dir: &Dir, receipt: &Receipt) -> Result<()> {
    let operation = "lend";
    let Some(loan) = &receipt.loan else { return Ok(()) };
    let Some(Lent { fd, path }) = lent_here(dir, receipt)? else {
        return Err(Error::new(
            ErrorKind::Replaced,
            operation,
            sys::path_of(dir).join(&receipt.name),
        )
        .because(format!("it is not inode {} any more", receipt.inode)));
    };
    let facts = Facts::of(&fd)?;
    if facts.owner_is(loan.user) {
        return Ok(());
    }
    expect_names(2, &facts, &path, operation)?;
    may_change_owner(&fd, &facts, &path, operation)?;
    sys::set_owner(&fd, (loan.user.uid(), loan.user.gid()))
        .map_err(|errno| change_owner_failed(dir, &receipt.name, loan.user, errno).on(loan.path()))
}

/// Checks how many names the file has: 1 where no tree has it, 2 where this one alone has it.
fn expect_names(names: u32, facts: &Facts, path: &Path, operation: &'static str) -> Result<()> {
    if facts.nlink == names {
        return Ok(());
    }
    if facts.nlink == 0 {
        return Err(Error::new(ErrorKind::NotFound, operation, path)
            .because("its last name was removed after it was opened"));
    }
    Err(Error::new(ErrorKind::Busy, operation, path)
        .because(format!("it has {} names: another tree may have it", facts.nlink))
        .hinted("Remove the tree that has it, or its other names."))
}

fn may_change_owner(
    file: impl AsFd,
    facts: &Facts,
    path: &Path,
    operation: &'static str,
) -> Result<()> {
    let refuse = |because, hint| {
        Err(Error::new(ErrorKind::Untrusted, operation, path).because(because).hinted(hint))
    };
    if facts.mode & 0o6000 != 0 {
        return refuse(
            format!("it has set-id bits (mode {:04o})", facts.mode),
            "Remove the bits: chmod ug-s.",
        );
    }
    // A user that the ACL names could go on reading and writing beside the new owner.
    if sys::has_xattr(file, ACL).map_err(|errno| Error::os(operation, path, errno))? {
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

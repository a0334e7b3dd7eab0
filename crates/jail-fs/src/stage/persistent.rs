//! A disk that outlives the tree.

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::unistd::{Gid, Uid, fchown};

use super::settle;
use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::fresh::{link, take_back};
use crate::inode::Facts;
use crate::lease::Lease;
use crate::name::Name;
use crate::options::CopyOptions;
use crate::owner::Owner;
use crate::receipt::{Receipt, Strategy};

/// Stages the very file `source` as `name` in `dir`, to be written through, under an exclusive lease of it.
///
/// It must have no other name: whoever planted one would get the file too, and a tree whose maker died, and with it
/// the lease, may still use it. With `owner` the file changes owner, by its descriptor: the explicit request without
/// which no file that was there before is ever given away.
///
/// # Errors
/// [`Busy`](ErrorKind::Busy) while someone else has the lease; [`CrossDevice`](ErrorKind::CrossDevice) where file and
/// tree are not on one mount; [`Untrusted`](ErrorKind::Untrusted) for a file with a second name, with set-id bits, or
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
) -> Result<(Receipt, Lease)> {
    let operation = "stage persistently";
    source.expect_file(operation)?;
    let lease = Lease::try_acquire_file(source)?;
    // Under the lease, as it is now.
    let facts = Facts::of(source)?;
    if facts.nlink != 1 {
        // A tree whose maker died, and with it the lease, may be in use still.
        return Err(Error::new(ErrorKind::Untrusted, operation, source.path())
            .because(format!("it has {} names: another tree may have it", facts.nlink))
            .hinted("remove the tree that has it, or its other names"));
    }
    let change = owner.filter(|owner| !facts.owner_is(*owner));
    if change.is_some() {
        may_change_owner(source, &facts, operation)?;
    }
    link(source, dir, name).map_err(|errno| match errno {
        Errno::EXDEV => source
            .failed(operation, errno)
            .because("the tree is on another filesystem or mount")
            .hinted("keep the disk on the filesystem of the tree; a copy would not persist"),
        _ => Error::at(operation, dir, name, errno),
    })?;
    settle(dir, name, options)?;
    // Last, for it is not taken back.
    if let Some(owner) = change {
        give_away(source, owner, operation).inspect_err(|_| take_back(dir, name))?;
    }
    let receipt = Receipt {
        name: name.clone(),
        strategy: Strategy::PersistentLink,
        fallback: None,
        bytes_copied: 0,
        inode: facts.id,
        source: facts.stamp(),
    };
    Ok((receipt, lease))
}

fn may_change_owner(source: &Artifact, facts: &Facts, operation: &'static str) -> Result<()> {
    let refuse = |because, hint| {
        Err(Error::new(ErrorKind::Untrusted, operation, source.path())
            .because(because)
            .hinted(hint))
    };
    if facts.mode & 0o6000 != 0 {
        return refuse(format!("it has set-id bits (mode {:04o})", facts.mode), "chmod ug-s");
    }
    if facts.uid != 0 && facts.uid != Owner::caller().uid() {
        return refuse(
            format!("it belongs to uid {}", facts.uid),
            "chown it yourself, if that is meant",
        );
    }
    Ok(())
}

/// The same descriptor that was checked; a name that appeared since would have been linked from a root-only file.
fn give_away(source: &Artifact, owner: Owner, operation: &'static str) -> Result<()> {
    let now = Facts::of(source)?;
    if now.nlink != 2 {
        return Err(Error::new(ErrorKind::Untrusted, operation, source.path())
            .because(format!("it got {} names meanwhile", now.nlink)));
    }
    fchown(source, Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())))
        .map_err(|errno| source.failed("change owner of", errno))
}

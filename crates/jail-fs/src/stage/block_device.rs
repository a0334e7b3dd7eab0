//! A block device of the host.

use std::fmt;

use cap_std::fs::Dir;

use super::artifact::Artifact;
use super::new_inode::{Device, NewInode, take_back};
use super::receipt::{Receipt, Strategy};
use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;
use crate::owner::Owner;

/// The rights of a device node's user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read: the node stays the caller's, 0440 for the user's group, so that the user cannot take more.
    ReadOnly,
    /// Read and write: the node is the user's, 0600.
    ReadWrite,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        })
    }
}

/// Stages the block device `source` as a node `name` in `dir`, with the device's own numbers (`mknodat(2)`); the device
/// itself is neither opened nor changed.
///
/// # Errors
/// [`Privilege`](ErrorKind::Privilege) without `CAP_MKNOD`; [`AlreadyExists`](ErrorKind::AlreadyExists);
/// [`Untrusted`](ErrorKind::Untrusted) for a source that is no block device.
///
/// # Privileges
/// `CAP_MKNOD`, and `CAP_CHOWN` if `user` is not the caller.
pub fn block_device(
    source: &Artifact,
    dir: &Dir,
    name: &Name,
    user: Owner,
    access: Access,
) -> Result<Receipt> {
    let Some((major, minor)) = source.device() else {
        return Err(Error::new(ErrorKind::Untrusted, "stage as a block device", source.path())
            .because(format!("it is {}", source.facts().noun()))
            .hinted("Name a block device, or stage the file as a private, read-only or persistent drive."));
    };
    let (owner, mode) = match access {
        Access::ReadOnly => (Owner::new(Owner::caller().uid(), user.gid())?, 0o440),
        Access::ReadWrite => (user, 0o600),
    };
    let device = Device { kind: source.facts().kind, major, minor };
    let node = NewInode::node(dir, name, device, mode)?;
    node.give((dir, name), owner, mode).map_err(|error| error.after(take_back(dir, name)))?;
    Ok(Receipt {
        name: name.clone(),
        strategy: Strategy::DeviceNode,
        fallback: None,
        bytes_copied: 0,
        inode: node.id(),
        source: source.stamp(),
        loan: None,
    })
}

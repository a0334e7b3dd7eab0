//! A block device of the host.

use cap_std::fs::Dir;

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result};
use crate::fresh::{Device, Fresh, take_back};
use crate::name::Name;
use crate::owner::Owner;
use crate::receipt::{Receipt, Strategy};

/// What a device node lets its user do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Read: the node stays the caller's, 0440 for the user's group, so that the user cannot give itself more.
    ReadOnly,
    /// Read and write: the node is the user's, 0600.
    ReadWrite,
}

/// Stages the block device `source` as a node `name` in `dir`, with the device's own numbers (`mknod(2)`); the device
/// itself is neither opened nor changed.
///
/// # Errors
/// [`Privilege`](ErrorKind::Privilege) without `CAP_MKNOD`; [`AlreadyExists`](ErrorKind::AlreadyExists);
/// [`Untrusted`](ErrorKind::Untrusted) for what is no block device.
///
/// # Privileges
/// `CAP_MKNOD`, and `CAP_CHOWN` where `user` is not the caller.
pub fn block_device(
    source: &Artifact,
    dir: &Dir,
    name: &Name,
    user: Owner,
    access: Access,
) -> Result<Receipt> {
    let Some((major, minor)) = source.device() else {
        return Err(Error::new(ErrorKind::Untrusted, "stage as a block device", source.path())
            .because(format!("it is {}", source.facts().noun())));
    };
    let (owner, mode) = match access {
        Access::ReadOnly => (Owner::new(Owner::caller().uid(), user.gid())?, 0o440),
        Access::ReadWrite => (user, 0o600),
    };
    let device = Device { kind: source.facts().kind, major, minor };
    let node = Fresh::node(dir, name, device, mode)?;
    node.give((dir, name), owner, mode).inspect_err(|_| take_back(dir, name))?;
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

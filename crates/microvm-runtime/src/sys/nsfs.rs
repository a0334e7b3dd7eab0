//! The kind and the owner of a namespace (`ioctl_ns(2)`).

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, FromRawFd as _, OwnedFd};

/// `NS_GET_USERNS` of `linux/nsfs.h`, Linux 4.9.
const GET_USERNS: libc::Ioctl = 0xb701;

/// `NS_GET_NSTYPE` of `linux/nsfs.h`, Linux 4.11.
const GET_NSTYPE: libc::Ioctl = 0xb703;

/// Returns true if the nsfs file is a network namespace (`ioctl(NS_GET_NSTYPE)`).
pub(crate) fn is_network_namespace(file: impl AsFd) -> bool {
    // SAFETY: the call takes no argument and changes nothing; a file of any other kind refuses it.
    let kind = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

/// Returns the user namespace that owns a namespace (`ioctl(NS_GET_USERNS)`). Fails with EPERM unless that is the
/// caller's user namespace or a descendant.
pub(crate) fn user_namespace_of(file: impl AsFd) -> io::Result<OwnedFd> {
    // SAFETY: the call takes no argument and changes nothing; a file of any other kind refuses it.
    let owner = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), GET_USERNS) };
    if owner < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, close-on-exec, for this call alone.
    Ok(unsafe { OwnedFd::from_raw_fd(owner) })
}

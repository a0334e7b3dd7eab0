//! `ioctl_ns(2)`: what kind of namespace a file is.

use std::os::fd::{AsFd, AsRawFd as _};

/// `NS_GET_NSTYPE` of `linux/nsfs.h`, Linux 4.11.
const GET_NSTYPE: libc::Ioctl = 0xb703;

/// Returns true if the nsfs file is a network namespace (`ioctl(NS_GET_NSTYPE)`).
pub(crate) fn is_network_namespace(file: impl AsFd) -> bool {
    // SAFETY: the call takes no argument and changes nothing; a file of any other kind refuses it.
    let kind = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), GET_NSTYPE) };
    kind == libc::CLONE_NEWNET
}

//! The network namespace that a new process is born in.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use super::tap::NewTap;
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space, unshare_unsafe};

/// The network namespace of a new process.
#[derive(Debug)]
pub(crate) enum NetworkNamespace {
    /// The parent's.
    Parents,
    /// A new one, with these tap devices.
    New(Vec<NewTap>),
    /// This one, a file of nsfs.
    Joined(OwnedFd),
}

impl NetworkNamespace {
    /// Moves the calling thread into the namespace, and so all processes that the thread makes. On failure, returns the
    /// name of the call.
    pub(super) fn enter(&self) -> Result<(), (&'static str, io::Error)> {
        match self {
            Self::Parents => Ok(()),
            // SAFETY: a network namespace has no descriptor and no memory of the process: the flag concerns only sockets
            // that this thread opens from here on.
            Self::New(taps) => unsafe { unshare_unsafe(UnshareFlags::NEWNET) }
                .map_err(|errno| ("unshare", errno.into()))
                // If one fails, all of them go with the namespace.
                .and_then(|()| taps.iter().try_for_each(NewTap::create)),
            Self::Joined(file) => {
                move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .map_err(|errno| ("setns", errno.into()))
            }
        }
    }
}

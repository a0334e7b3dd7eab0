//! Waiting for descriptors (`poll(2)`) until a deadline.

use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, Timespec};

use super::Errno;
use crate::deadline::Deadline;

/// The event of a descriptor to wait for. A hang-up and an error always count.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Wanted {
    Readable,
    ReadableOrWritable,
    HangUp,
}

/// Waits until a descriptor has its event, a signal arrives, or the deadline passes; returns true for each descriptor
/// that has its event.
pub(crate) fn poll<const N: usize>(
    fds: [(&dyn AsFd, Wanted); N],
    deadline: Deadline,
) -> Result<[bool; N], Errno> {
    let mut fds = fds.map(|(fd, wanted)| {
        let flags = match wanted {
            Wanted::Readable => PollFlags::IN,
            Wanted::ReadableOrWritable => PollFlags::IN | PollFlags::OUT,
            Wanted::HangUp => PollFlags::empty(),
        };
        PollFd::from_borrowed_fd(fd.as_fd(), flags)
    });
    wait(&mut fds, deadline)?;
    Ok(fds.map(|fd| !fd.revents().is_empty()))
}

/// Waits until one of any number of descriptors is readable, a signal arrives, or the deadline passes.
pub(crate) fn poll_any<'a>(
    fds: impl IntoIterator<Item = BorrowedFd<'a>>,
    deadline: Deadline,
) -> Result<(), Errno> {
    let fds = fds.into_iter().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN));
    wait(&mut fds.collect::<Vec<_>>(), deadline)
}

fn wait(fds: &mut [PollFd<'_>], deadline: Deadline) -> Result<(), Errno> {
    // A time that `ppoll` cannot express is centuries away.
    let timeout = deadline.left().and_then(|left| Timespec::try_from(left).ok());
    match rustix::event::poll(fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(errno),
    }
}

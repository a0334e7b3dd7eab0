//! Processes by pidfd, and waiting.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Event to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A process of a pidfd exits.
    Exit,
    /// A kernel file changes.
    Change,
}

/// Opens a pidfd (pidfd_open(2), Linux 5.3); `None` if there is no process `pid`.
pub(crate) fn pidfd(pid: u32) -> Result<Option<OwnedFd>, Errno> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // The id of a thread is refused by these, by version of the kernel.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sends SIGKILL (pidfd_send_signal(2), Linux 5.1); a process that has exited is fine.
pub(crate) fn signal_kill(pidfd: impl AsFd) -> Result<(), Errno> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Err(Errno::SRCH) => Ok(()),
        done => done,
    }
}

/// Waits for `event` on `fd` until `deadline`, without one for ever (ppoll(2)). Returns true if it came.
pub(crate) fn wait_for(
    fd: impl AsFd,
    event: Event,
    deadline: Option<Instant>,
) -> Result<bool, Errno> {
    let flags = match event {
        Event::Exit => PollFlags::IN,
        Event::Change => PollFlags::PRI,
    };
    loop {
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        // A time too long for the kernel is for ever.
        let timeout = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(&mut [PollFd::new(&fd, flags)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_no_process() {
        std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            assert!(pidfd(thread).unwrap().is_none());
        })
        .join()
        .unwrap();
        assert!(pidfd(std::process::id()).unwrap().is_some());
        assert!(pidfd(0).unwrap().is_none());
        assert!(pidfd(u32::MAX).unwrap().is_none());
    }
}

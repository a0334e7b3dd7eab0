//! Processes by descriptor: `pidfd_open(2)`, `pidfd_send_signal(2)`, and `waitid(2)` with `P_PIDFD`.

use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::process::{
    Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, pidfd_open, pidfd_send_signal, waitid,
};

use super::Errno;

/// Opens the process `pid`; `None` if there is no such process.
///
/// # Errors
/// `EINVAL` for a number that is no pid, and the kernel's own.
pub(crate) fn open_process(pid: u32) -> Result<Option<OwnedFd>, Errno> {
    let number = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(Errno::INVAL)?;
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // EINVAL and ENOENT: the number of a thread, or a number that the kernel is about to free.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Sends SIGKILL. Succeeds if the process has exited.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> Result<(), Errno> {
    match pidfd_send_signal(pidfd, Signal::KILL) {
        Ok(()) | Err(Errno::SRCH) => Ok(()),
        Err(errno) => Err(errno),
    }
}

/// Reaps a child without waiting. Returns the status as `waitpid(2)` encodes it; `None` if the child runs, or is traced.
///
/// # Errors
/// `ECHILD` if the process is not a child of this process, or was reaped.
pub(crate) fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<i32>, Errno> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    let status = retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options))?;
    Ok(status.and_then(|status| match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Some((code & 0xff) << 8),
        (None, signal) => signal,
    }))
}

//! The calls that need `unsafe`.

#![expect(unsafe_code, reason = "fork(2), clone(2) and close_range(2) have no safe wrapper")]

use std::io;

use nix::libc;
use nix::unistd::ForkResult;

/// The two sides of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fork {
    Parent,
    Child,
}

/// fork(2).
pub(crate) fn fork() -> io::Result<Fork> {
    // SAFETY: this process has one thread, so the child finds no lock held by another.
    match unsafe { nix::unistd::fork() }? {
        ForkResult::Parent { .. } => Ok(Fork::Parent),
        ForkResult::Child => Ok(Fork::Child),
    }
}

/// clone(2) with `CLONE_NEWPID` and no exit signal: the child's pid, or 0 in the child, which is PID 1.
pub(crate) fn clone_into_new_pid_namespace() -> io::Result<i32> {
    // SAFETY: as for a fork, which this is but for the namespace: a null stack means a copy of ours, nothing is shared.
    let pid = unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWPID, 0, 0, 0, 0) };
    match i32::try_from(pid) {
        Ok(pid) if pid >= 0 => Ok(pid),
        _ => Err(io::Error::last_os_error()),
    }
}

/// close_range(2) on all descriptors but 0, 1 and 2.
pub(crate) fn close_inherited_descriptors() {
    // SAFETY: called first thing, before this process opened anything: no descriptor that is closed has an owner here.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE)
    };
    if closed != 0 {
        eprintln!("Failed to sanitize the Jailer process: {}", io::Error::last_os_error());
        std::process::abort();
    }
}

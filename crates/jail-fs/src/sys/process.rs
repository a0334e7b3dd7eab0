//! The calling process: identity, limits, privileges and locks.

use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FlockOperation, flock};
pub(crate) use rustix::process::Pid;
use rustix::process::{Resource, getegid, geteuid, getpid, getrlimit};
use rustix::rand::{GetRandomFlags, getrandom};
use rustix::thread::{CapabilitySet, capabilities};

use super::{Result, errno};

pub(crate) fn pid() -> Pid {
    getpid()
}

pub(crate) fn effective_uid() -> u32 {
    geteuid().as_raw()
}

pub(crate) fn effective_gid() -> u32 {
    getegid().as_raw()
}

/// Looks for `CAP_MKNOD` in the thread; `None` if the kernel does not tell.
pub(crate) fn can_make_nodes() -> Option<bool> {
    // Only for the words of an error.
    capabilities(None).ok().map(|sets| sets.effective.contains(CapabilitySet::MKNOD))
}

/// The most bytes a file may have that this process writes (`RLIMIT_FSIZE`).
pub(crate) fn file_size_limit() -> Option<u64> {
    getrlimit(Resource::Fsize).current
}

/// The most descriptors of this process (`RLIMIT_NOFILE`).
pub(crate) fn open_files_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Takes an exclusive lock, or answers EWOULDBLOCK at once.
pub(crate) fn lock(fd: impl AsFd) -> Result<()> {
    flock(fd, FlockOperation::NonBlockingLockExclusive).map_err(errno)
}

pub(crate) fn unlock(fd: impl AsFd) -> Result<()> {
    flock(fd, FlockOperation::Unlock).map_err(errno)
}

/// Returns true if an open table of mounts has not changed since the last call (poll(2), see proc_pid_mountinfo(5)).
pub(crate) fn is_unchanged(mountinfo: impl AsFd) -> bool {
    poll(&mut [PollFd::new(&mountinfo, PollFlags::PRI)], Some(&Timespec::default())) == Ok(0)
}

/// 64 random bits.
pub(crate) fn random() -> Result<u64> {
    let mut random = [0; 8];
    getrandom(&mut random, GetRandomFlags::empty()).map_err(errno)?;
    Ok(u64::from_ne_bytes(random))
}

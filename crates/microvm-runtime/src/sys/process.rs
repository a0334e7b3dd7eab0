//! Ids, capabilities and resource limits of this process, and the users of the others.

use rustix::process::{Uid, getpriority_user};
use rustix::thread::{CapabilitiesSecureBits, capabilities, capabilities_secure_bits};

pub(crate) use rustix::process::{Resource, Rlimit, getrlimit};
pub(crate) use rustix::thread::CapabilitySet;

use super::Errno;

/// Returns the effective uid of this process (`geteuid(2)`).
pub(crate) fn effective_uid() -> u32 {
    rustix::process::geteuid().as_raw()
}

/// Returns the pid and the thread id of the caller, in the caller's pid namespace.
pub(crate) fn pid_and_thread() -> (i32, i32) {
    (rustix::process::getpid().as_raw_pid(), rustix::thread::gettid().as_raw_pid())
}

/// Returns true if this thread has the effective capability (`capget(2)`).
pub(crate) fn has_capability(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Returns true if root gains no capabilities by execve (`SECBIT_NOROOT`).
pub(crate) fn root_gains_nothing() -> bool {
    capabilities_secure_bits().is_ok_and(|bits| bits.contains(CapabilitiesSecureBits::NO_ROOT))
}

/// Returns true if a process or a zombie of this pid namespace has this real uid (`getpriority(2)`).
pub(crate) fn uid_is_in_use(uid: u32) -> Result<bool, Errno> {
    match getpriority_user(Uid::from_raw(uid)) {
        Ok(_) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(errno) => Err(errno),
    }
}

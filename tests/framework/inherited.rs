//! Sets conditions that a process may inherit. Each condition lasts until the process exits, so use a separate process.

use std::sync::atomic::Ordering;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::signal::SaFlags;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::sys;

/// Ignores SIGCHLD, so that no child becomes a zombie.
///
/// # Panics
/// If the kernel refuses.
pub fn ignore_children() {
    sys::set_children(true, SaFlags::empty()).expect("ignore SIGCHLD");
}

/// Sets `SA_NOCLDWAIT`, so that no child becomes a zombie.
///
/// # Panics
/// If the kernel refuses.
pub fn keep_no_zombies() {
    sys::set_children(false, SaFlags::SA_NOCLDWAIT).expect("set SA_NOCLDWAIT");
}

/// Starts a thread that reaps every child of this process.
pub fn reap_everything() {
    std::thread::spawn(|| {
        loop {
            if waitpid(Pid::from_raw(-1), Some(WaitPidFlag::empty())).is_err() {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
    });
}

/// Sends SIGALRM to this process twice a millisecond.
///
/// # Panics
/// If the kernel refuses.
pub fn start_alarms() {
    sys::start_alarms(500).expect("start the timer");
}

/// Returns the number of handled SIGALRM signals.
#[must_use]
pub fn alarms() -> u64 {
    sys::ALARMS.load(Ordering::Relaxed)
}

/// Makes the system call `number` fail with `errno`, as the seccomp filter of a container does.
///
/// # Panics
/// If the kernel refuses.
pub fn refuse_call(number: i64, errno: Errno) {
    sys::refuse_call(u32::try_from(number).expect("a call's number"), errno)
        .expect("set the filter");
}

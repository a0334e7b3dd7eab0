//! Attributes of a process that an exec keeps, set to the system's defaults.

use std::ffi::{c_int, c_long};
use std::ptr;

/// `IOPRIO_WHO_PROCESS` of `linux/ioprio.h`.
const IOPRIO_WHO_PROCESS: c_long = 1;

/// `MPOL_DEFAULT` of `linux/mempolicy.h`.
const MPOL_DEFAULT: c_long = 0;

/// The timer slack of init in nanoseconds. A new process's own default is its parent's slack (prctl(2)).
const TIMER_SLACK: c_long = 50_000;

/// Sets how this process is scheduled, what memory it gets and how the OOM killer treats it to what a process has by
/// default. Returns false if a value that would void a limit stays (`errno`).
///
/// `cpu.max` and `cpu.cfs_quota_us` do not limit a process under a real-time policy (`sched(7)`); a process that the OOM
/// killer spares makes a memory limit void; a personality without address randomisation weakens the VMM. Nice values,
/// CPU affinity, I/O priority, memory policy and timer slack of the launcher are no concern of a VM: control groups
/// say what a VM gets. A cpuset still bounds the affinity.
///
/// Each call changes this process alone, also while the process shares its parent's memory. Raw calls, as glibc has no
/// wrapper for most of them.
pub(super) fn set_defaults() -> bool {
    let call = |number: c_long, arguments: [c_long; 3]| {
        let [a, b, c] = arguments;
        // SAFETY: each call below takes numbers, or an address that the kernel only reads and that lives long enough.
        unsafe { libc::syscall(number, a, b, c, 0, 0) >= 0 }
    };
    let none = libc::sched_param { sched_priority: 0 };
    let scheduled = call(
        libc::SYS_sched_setscheduler,
        [0, libc::SCHED_OTHER.into(), (&raw const none).expose_provenance() as c_long],
    );
    let every = [u8::MAX; 1024];
    let every = [every.len() as c_long, every.as_ptr().expose_provenance() as c_long];
    // What may fail without a capability (a better nice value), or in a kernel without the feature, voids no limit.
    call(libc::SYS_setpriority, [libc::PRIO_PROCESS.into(), 0, 0]);
    call(libc::SYS_sched_setaffinity, [0, every[0], every[1]]);
    call(libc::SYS_ioprio_set, [IOPRIO_WHO_PROCESS, 0, 0]);
    call(libc::SYS_set_mempolicy, [MPOL_DEFAULT, 0, 0]);
    call(libc::SYS_prctl, [libc::PR_SET_TIMERSLACK.into(), TIMER_SLACK, 0]);
    scheduled && call(libc::SYS_personality, [0, 0, 0]) && allow_oom_kill()
}

/// Sets a negative `oom_score_adj` to 0. A positive value stays: raising is free, and somebody wanted the launcher and
/// all that it starts to go first.
fn allow_oom_kill() -> bool {
    // SAFETY: the path is a string.
    let file =
        unsafe { libc::open(c"/proc/self/oom_score_adj".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if file < 0 {
        return false;
    }
    let mut first = 0_u8;
    // SAFETY: the place for the byte is there.
    let read: isize = unsafe { libc::pread(file, ptr::from_mut(&mut first).cast(), 1, 0) };
    // SAFETY: the byte is there.
    let set = first != b'-' || unsafe { libc::pwrite(file, c"0".as_ptr().cast(), 1, 0) } == 1;
    // SAFETY: nobody else has the descriptor.
    let closed: c_int = unsafe { libc::close(file) };
    read == 1 && set && closed == 0
}

//! Signal masks and dispositions.

use std::ffi::{c_int, c_ulong};
use std::mem::MaybeUninit;
use std::ptr;

/// Signals of the kernel: 1 to 64.
const SIGNALS: c_int = 64;

/// `struct sigaction` of the kernel, in which a disposition without a handler needs no more than zeros.
#[repr(C)]
struct Disposition {
    handler: usize,
    flags: c_ulong,
    restorer: usize,
    mask: u64,
}

/// Bytes of the kernel's `sigset_t`.
const SET: usize = size_of::<u64>();

/// Resets every signal of this process to the default disposition, discards pending stop signals, and unblocks everything
/// (`rt_sigaction(2)`, `rt_sigprocmask(2)`).
///
/// Raw calls: libc refuses its own two signals, takes a lock for SIGABRT, and the caller may be a child that shares its
/// parent's memory.
pub(super) fn reset() {
    let set = |signal: c_int, handler: usize| {
        let disposition = Disposition { handler, flags: 0, restorer: 0, mask: 0 };
        // SAFETY: the structure is the kernel's, and no handler of this program is named in it.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                &raw const disposition,
                ptr::null_mut::<Disposition>(),
                SET,
            )
        };
    };
    for signal in 1..=SIGNALS {
        // A signal that is ignored while it is pending is gone: these three would stop the process below.
        if [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU].contains(&signal) {
            set(signal, libc::SIG_IGN);
        }
        // The kernel refuses SIGKILL and SIGSTOP, which have no other disposition.
        set(signal, libc::SIG_DFL);
    }
    let none = 0_u64;
    // SAFETY: the set is there, and of the size that is given.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const none,
            ptr::null_mut::<u64>(),
            SET,
        )
    };
}

/// Calls `run` with every signal blocked for this thread, and so for each thread and process that `run` starts.
pub(crate) fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    let _blocked = Blocked::all();
    run()
}

/// Blocks every signal for this thread until the value is dropped.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        let (mut all, mut before) = (empty(), empty());
        // SAFETY: the set is there, and filled.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: both sets are there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self(before)
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

fn empty() -> libc::sigset_t {
    let mut none = MaybeUninit::uninit();
    // SAFETY: it fills what it is given.
    unsafe { libc::sigemptyset(none.as_mut_ptr()) };
    // SAFETY: it was filled.
    unsafe { none.assume_init() }
}

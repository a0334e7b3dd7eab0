//! Processes of the tests' own: an attacker, a victim of SIGKILL, a caller with another umask.
#![expect(unsafe_code, reason = "fork(2) has no safe form")]

use std::panic::{AssertUnwindSafe, catch_unwind};

use jail_fs::Owner;
use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Gid, Pid, Uid, fork, getppid, setgroups, setresgid, setresuid};

/// The end of a process that was to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The process was killed before the end.
    Killed,
    /// The process succeeded before the given call.
    Done,
}

/// Runs `body` as root in a separate process, which SIGKILL ends on the way into system call number `call`, counted
/// from 0 (`ptrace(2)`): that call is not made.
pub(crate) fn killed_before(call: u32, body: impl FnOnce() -> bool) -> End {
    let mut child = Child::spawn(Owner::ROOT, || {
        ptrace::traceme().unwrap();
        raise(Signal::SIGSTOP).unwrap();
        body()
    });
    let pid = child.0.unwrap();
    let goes_on = |until: &WaitStatus| match until {
        WaitStatus::Stopped(..) => true,
        WaitStatus::Exited(_, 0) => false,
        other => panic!("the traced process: {other:?}"),
    };
    assert!(goes_on(&waitpid(pid, None).unwrap()));
    // It stops on the way into a call and on the way out; the first way out is that of its own SIGSTOP.
    for _ in 0..=2 * call + 1 {
        ptrace::syscall(pid, None).unwrap();
        if !goes_on(&waitpid(pid, None).unwrap()) {
            child.0 = None;
            return End::Done;
        }
    }
    child.end();
    End::Killed
}

/// A forked process, killed and reaped on drop.
#[derive(Debug)]
pub(crate) struct Child(Option<Pid>);

impl Child {
    /// Runs `body` as `user` in a separate process: status 0 if it neither failed nor panicked.
    pub(crate) fn spawn(user: Owner, body: impl FnOnce() -> bool) -> Self {
        let parent = Pid::this();
        // SAFETY: the child runs `body` and ends by `_exit`. It calls nothing that needs another thread of ours: what it
        // allocates is served by glibc, whose own fork handlers leave its heap usable, and it prints only when it panics.
        match unsafe { fork() }.unwrap() {
            ForkResult::Parent { child } => Self(Some(child)),
            ForkResult::Child => {
                let done = catch_unwind(AssertUnwindSafe(|| {
                    rustix::process::set_parent_process_death_signal(Some(
                        rustix::process::Signal::KILL,
                    ))
                    .unwrap();
                    assert_eq!(getppid(), parent);
                    become_user(user);
                    body()
                }));
                // SAFETY: `_exit` ends the process at once; nothing of the parent's is flushed or dropped twice.
                unsafe { nix::libc::_exit(i32::from(!done.unwrap_or(false))) }
            }
        }
    }

    /// Waits for the end; returns true after status 0.
    pub(crate) fn succeeded(mut self) -> bool {
        let pid = self.0.take().unwrap();
        matches!(waitpid(pid, None).unwrap(), WaitStatus::Exited(_, 0))
    }

    /// SIGKILL, now.
    pub(crate) fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        if let Some(pid) = self.0.take() {
            // It is our child and not reaped, so the number is still its own.
            let _ = kill(pid, Signal::SIGKILL);
            let _ = waitpid(pid, None);
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end();
    }
}

/// Closes all descriptors from 3 on. Call this function in a child that outlives the test: inherited descriptors would keep
/// the files of other tests open. Values that own a descriptor must not be used afterwards.
pub(crate) fn close_inherited() {
    // SAFETY: nothing is dereferenced; the child opens what it needs by path, and ends by a signal or `_exit`.
    let closed = unsafe { nix::libc::close_range(3, nix::libc::c_uint::MAX, 0) };
    assert_eq!(closed, 0);
}

fn become_user(user: Owner) {
    let (uid, gid) = (Uid::from_raw(user.uid()), Gid::from_raw(user.gid()));
    if user != Owner::ROOT {
        setgroups(&[]).unwrap();
        setresgid(gid, gid, gid).unwrap();
        setresuid(uid, uid, uid).unwrap();
    }
}

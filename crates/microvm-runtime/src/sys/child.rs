//! The code of a new process before the exec: system calls only, since the process shares the parent's memory, where another
//! thread may hold any lock. See `docs/spawn.md`.

use std::ffi::{c_char, c_int, c_long};
use std::io;
use std::ptr;

use super::{credentials, defaults, no_keys, signals};

/// The child's parameters.
pub(super) struct Child {
    pub(super) program: *const c_char,
    pub(super) argv: *const *const c_char,
    /// The child's stdin, stdout and stderr.
    pub(super) stdio: [c_int; 3],
    pub(super) leads_session: bool,
    pub(super) as_root: bool,
    pub(super) isolated: bool,
    /// v1: the `tasks` files of the control group to join.
    pub(super) tasks: Box<[c_int]>,
    pub(super) limits: Box<[(c_int, libc::rlimit64)]>,
    /// The descriptor for the failed step and the errno.
    pub(super) failure: c_int,
}

/// A step of a child that can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    JoinGroup,
    SetDescriptors,
    LeadSession,
    EnterRoot,
    BecomeRoot,
    JoinKeyring,
    RefuseKeys,
    SetDefaults,
    SetLimits,
    Exec,
}

impl Step {
    const ALL: [Self; 10] = [
        Self::JoinGroup,
        Self::SetDescriptors,
        Self::LeadSession,
        Self::EnterRoot,
        Self::BecomeRoot,
        Self::JoinKeyring,
        Self::RefuseKeys,
        Self::SetDefaults,
        Self::SetLimits,
        Self::Exec,
    ];

    /// The step that a child wrote.
    pub(super) fn read(byte: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|step| *step as u8 == byte)
    }

    /// The call that failed.
    pub(super) fn call(self) -> &'static str {
        match self {
            Self::JoinGroup => "write to cgroup tasks",
            Self::SetDescriptors => "dup3",
            Self::LeadSession => "setsid",
            Self::EnterRoot => "chdir",
            Self::BecomeRoot => "setresuid",
            Self::JoinKeyring => "keyctl(KEYCTL_JOIN_SESSION_KEYRING)",
            Self::RefuseKeys => "seccomp(SECCOMP_SET_MODE_FILTER)",
            Self::SetDefaults => "sched_setscheduler, personality or write to oom_score_adj",
            Self::SetLimits => "prlimit",
            Self::Exec => "execve",
        }
    }
}

/// The child's last descriptor before the exec, for the report of a failure.
const LAST: c_int = 3;

/// Mode bits that new files do not get: the jailer makes what others must be able to read.
const UMASK: libc::mode_t = 0o022;

/// `KEYCTL_JOIN_SESSION_KEYRING` of `linux/keyctl.h`.
const JOIN_SESSION_KEYRING: c_long = 1;

/// Reports the failure and ends the child.
fn fail(failure: c_int, step: Step) -> ! {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
    let words = [step as u8, u8::try_from(errno).unwrap_or(u8::MAX)];
    // SAFETY: the bytes are there. If they are not written, the parent sees a child that exited.
    unsafe { libc::write(failure, words.as_ptr().cast(), words.len()) };
    // SAFETY: it ends this process alone, and runs nothing of the parent's.
    unsafe { libc::_exit(127) }
}

/// Becomes the program.
pub(super) extern "C" fn become_program(child: &Child) -> ! {
    for file in &child.tasks {
        // SAFETY: the byte is there.
        if unsafe { libc::write(*file, c"0".as_ptr().cast(), 1) } < 0 {
            fail(child.failure, Step::JoinGroup);
        }
    }
    let check =
        |failure, step, result: c_int| if result < 0 { fail(failure, step) } else { result };
    // Out of the way of one another first, in case the launcher has closed its own.
    let high = |fd| {
        // SAFETY: it duplicates a descriptor.
        let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, LAST) };
        check(child.failure, Step::SetDescriptors, copy)
    };
    let mut failure = high(child.failure);
    for (number, fd) in (0..).zip(child.stdio.map(high)) {
        // SAFETY: the table of descriptors is the child's own.
        check(failure, Step::SetDescriptors, unsafe { libc::dup2(fd, number) });
    }
    if failure != LAST {
        // SAFETY: the table of descriptors is the child's own.
        let last = unsafe { libc::dup3(failure, LAST, libc::O_CLOEXEC) };
        failure = check(failure, Step::SetDescriptors, last);
    }
    // Here, and not by the exec, which lets the launcher go on before it closes any: were the launcher killed then, its
    // locks would seem to be held. Linux before 5.9 has no such call, and there it is so.
    // SAFETY: no one else has the descriptors of this table.
    unsafe { libc::syscall(libc::SYS_close_range, LAST + 1, c_int::MAX, 0) };
    // A session: the death of the launcher sends no SIGHUP, and no terminal of the launcher's is at hand.
    if child.leads_session {
        // SAFETY: it changes this process alone.
        check(failure, Step::LeadSession, unsafe { libc::setsid() });
    }
    // SAFETY: the working directory is this process's own, as CLONE_FS was not asked for.
    check(failure, Step::EnterRoot, unsafe { libc::chdir(c"/".as_ptr()) });
    // SAFETY: the mask is this process's own, as CLONE_FS was not asked for.
    unsafe { libc::umask(UMASK) };
    if child.as_root && !credentials::become_root() {
        fail(failure, Step::BecomeRoot);
    }
    // SAFETY: a null name asks for a new keyring; credentials are this process's own.
    let keyring =
        unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<c_char>()) };
    // A kernel without keys has none to share.
    if keyring < 0 && io::Error::last_os_error().raw_os_error() != Some(libc::ENOSYS) {
        fail(failure, Step::JoinKeyring);
    }
    // After the call above, which the filter refuses.
    if child.isolated && !no_keys::refuse_keys() {
        fail(failure, Step::RefuseKeys);
    }
    if child.isolated && !defaults::set_defaults() {
        fail(failure, Step::SetDefaults);
    }
    for (resource, limit) in &child.limits {
        // SAFETY: the limit is there; it is set for this process alone.
        let set = unsafe {
            libc::syscall(
                libc::SYS_prlimit64,
                0,
                *resource,
                &raw const *limit,
                ptr::null_mut::<libc::rlimit64>(),
            )
        };
        if set < 0 {
            fail(failure, Step::SetLimits);
        }
    }
    // Last before the exec: from here on a signal acts on this process.
    signals::reset();
    let environment = [ptr::null()];
    // SAFETY: all three are strings, or lists of strings that end with a null, which the parent keeps.
    unsafe { libc::execve(child.program, child.argv, environment.as_ptr()) };
    fail(failure, Step::Exec)
}

//! The system calls that no safe wrapper has: the only unsafe code of this crate.
#![expect(unsafe_code, reason = "two calls, and what the first takes, each with its reason")]

use std::arch::asm;
use std::ffi::{CString, c_int, c_long};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::ptr;

use jail_cgroup::Birthplace;
use rustix::io::{Errno, read, retry_on_intr};
use rustix::ioctl::{Opcode, Updater, ioctl, opcode};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};

/// A process to be made.
#[derive(Debug)]
pub(crate) struct NewProcess<'a> {
    /// The program's path first: it is not looked for.
    pub(crate) argv: &'a [CString],
    /// Its stdin, stdout and stderr.
    pub(crate) stdio: [BorrowedFd<'a>; 3],
    /// Whether it leads a process group of its own.
    pub(crate) leads_group: bool,
    /// Whether it is PID 1 of a fresh pid namespace.
    pub(crate) pid_namespace: bool,
    /// The control group that it is born in.
    pub(crate) birthplace: Option<&'a Birthplace<'a>>,
}

/// What a process could not be made for.
#[derive(Debug)]
pub(crate) enum NotMade {
    /// There is none.
    Process(io::Error),
    /// It could not be in its control group.
    Group(io::Error),
    /// There was one, which could not become the program; it is gone.
    Program(io::Error),
}

/// `CLONE_CLEAR_SIGHAND` and `CLONE_INTO_CGROUP` of `linux/sched.h`, which do not fit libc's type for such flags.
const CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// What the child may use until it becomes another program.
const STACK: usize = 64 << 10;

#[repr(align(16))]
struct Stack(#[expect(dead_code, reason = "the child's")] [MaybeUninit<u8>; STACK]);

/// Makes a process (`clone3(2)`, Linux 5.7) and waits until it is another program (`execve(2)`), without an environment,
/// in `/`: its pid, and its pidfd, which no other process can have come between.
///
/// In place of [`std::process::Command`], which cannot have it born in a control group (see [`Birthplace`]). Like that one
/// it shares the caller's memory until then (`CLONE_VM`, `CLONE_VFORK`), so it takes no longer in a large process; but not
/// where to join a group would move that memory. An OOM kill in the group, which would meet all who share a memory, passes
/// over who does so in a vfork (`in_vfork()`, Linux 4.8).
pub(crate) fn spawn(new: &NewProcess<'_>) -> Result<(u32, OwnedFd), NotMade> {
    // Not to be waited for: whoever else forks at this moment has a copy of it.
    let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
    let (failure, fails) = pipe_with(flags).map_err(|errno| NotMade::Process(errno.into()))?;
    let argv: Vec<_> = new.argv.iter().map(|arg| arg.as_ptr()).chain([ptr::null()]).collect();
    let tasks = new
        .birthplace
        .map_or_else(Vec::new, |place| place.tasks.iter().map(|file| file.as_raw_fd()).collect());
    let child = Child {
        program: argv.first().copied().unwrap_or(ptr::null()),
        argv: argv.as_ptr(),
        stdio: new.stdio.map(|fd| fd.as_raw_fd()),
        leads_group: new.leads_group,
        tasks: &tasks,
        fails: fails.as_raw_fd(),
    };
    let mut stack = Box::<Stack>::new_uninit();
    let mut pidfd: c_int = -1;
    let mut flags = libc::CLONE_VFORK | libc::CLONE_PIDFD;
    if new.birthplace.is_none_or(|place| !place.moves_memory) {
        flags |= libc::CLONE_VM;
    }
    if new.pid_namespace {
        flags |= libc::CLONE_NEWPID;
    }
    let mut flags = u64::from(flags.cast_unsigned()) | CLEAR_SIGHAND;
    let mut cgroup = 0;
    if let Some(group) = new.birthplace.and_then(|place| place.group) {
        flags |= INTO_CGROUP;
        cgroup = u64::from(group.as_raw_fd().cast_unsigned());
    }
    let arguments = libc::clone_args {
        flags,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        child_tid: 0,
        parent_tid: 0,
        exit_signal: u64::from(libc::SIGCHLD.cast_unsigned()),
        stack: stack.as_mut_ptr().expose_provenance() as u64,
        stack_size: STACK as u64,
        tls: 0,
        set_tid: 0,
        set_tid_size: 0,
        cgroup,
    };
    // No handler of this process's may run in the child, in this process's memory.
    let blocked = Blocked::all();
    // SAFETY: `arguments` names a stack and a place for the pidfd that live until this returns, as `child` and all it points
    // to do; the child is done with them by then.
    let made = unsafe { clone3(&arguments, become_program, &child) };
    drop(blocked);
    let pid = u32::try_from(made).map_err(|_| {
        let errno = i32::try_from(made.wrapping_neg()).unwrap_or(libc::EINVAL);
        let error = io::Error::from_raw_os_error(errno);
        match errno {
            // None of these is about a process alone.
            libc::EBUSY | libc::ENODEV | libc::ENOENT | libc::EOPNOTSUPP => NotMade::Group(error),
            _ => NotMade::Process(error),
        }
    })?;
    // SAFETY: the kernel has put a descriptor there that nobody else knows of.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    // It is another program by now, or has said why not.
    let mut said = [0; 2];
    let not_made = match retry_on_intr(|| read(&failure, &mut said)) {
        Ok(0) | Err(Errno::AGAIN) => return Ok((pid, pidfd)),
        Ok(_) => {
            let [step, errno] = said;
            let error = io::Error::from_raw_os_error(errno.into());
            if step == JOINING { NotMade::Group(error) } else { NotMade::Program(error) }
        }
        Err(errno) => NotMade::Process(errno.into()),
    };
    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
    // ECHILD: who ignores SIGCHLD has no zombies.
    let _ = retry_on_intr(|| waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED));
    Err(not_made)
}

/// What the child is told.
struct Child<'a> {
    program: *const libc::c_char,
    argv: *const *const libc::c_char,
    stdio: [c_int; 3],
    leads_group: bool,
    tasks: &'a [c_int],
    /// Where it says at which step it failed, and why.
    fails: c_int,
}

/// The last descriptor that a child has: where it says why it failed, until its exec.
const LAST: c_int = 3;

/// The steps of a child that can fail.
const JOINING: u8 = 0;
const BECOMING: u8 = 1;

/// The child's last words.
fn fail(fails: c_int, step: u8) -> ! {
    let errno = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
    let words = [step, u8::try_from(errno).unwrap_or(u8::MAX)];
    // SAFETY: the bytes are there. Nobody could be told that they were not written.
    unsafe { libc::write(fails, words.as_ptr().cast(), words.len()) };
    // SAFETY: it ends this process alone, and runs nothing of the parent's.
    unsafe { libc::_exit(127) }
}

/// The child: nothing but system calls, as another thread may hold any lock of this process's.
extern "C" fn become_program(child: &Child<'_>) -> ! {
    for file in child.tasks {
        // SAFETY: the byte is there.
        if unsafe { libc::write(*file, c"0".as_ptr().cast(), 1) } < 0 {
            fail(child.fails, JOINING);
        }
    }
    let check = |fails, result: c_int| if result < 0 { fail(fails, BECOMING) } else { result };
    // Out of the way of one another first, should the launcher have closed its own.
    let high = |fd| {
        // SAFETY: it duplicates a descriptor.
        check(child.fails, unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, LAST) })
    };
    let mut fails = high(child.fails);
    for (number, fd) in (0..).zip(child.stdio.map(high)) {
        // SAFETY: the table of descriptors is the child's own.
        check(fails, unsafe { libc::dup2(fd, number) });
    }
    if fails != LAST {
        // SAFETY: as before.
        fails = check(fails, unsafe { libc::dup3(fails, LAST, libc::O_CLOEXEC) });
    }
    // Here, and not by the exec, which lets the launcher go on before it closes any: were the launcher killed then, its
    // locks would seem to be held. Before Linux 5.9 that is so.
    // SAFETY: as before. No one else has those descriptors.
    unsafe { libc::syscall(libc::SYS_close_range, LAST + 1, c_int::MAX, 0) };
    if child.leads_group {
        // SAFETY: it changes this process alone.
        check(fails, unsafe { libc::setpgid(0, 0) });
    }
    // SAFETY: it changes this process alone.
    check(fails, unsafe { libc::chdir(c"/".as_ptr()) });
    // Rust ignores it, and an exec would keep that.
    // SAFETY: no handler is set.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    // SAFETY: an empty set is a set.
    let unblocked =
        unsafe { libc::sigprocmask(libc::SIG_SETMASK, &Blocked::none(), ptr::null_mut()) };
    check(fails, unblocked);
    let environment = [ptr::null()];
    // SAFETY: all three are strings, or lists of strings that end with a null, which the parent keeps.
    unsafe { libc::execve(child.program, child.argv, environment.as_ptr()) };
    fail(fails, BECOMING)
}

/// Calls `run` in a new process, on the stack that `arguments` names; the new process's pid, or a negative error number.
///
/// # Safety
/// What `arguments` points to, the stack too, must be there until the child has become another program or ended.
unsafe fn clone3(
    arguments: &libc::clone_args,
    run: extern "C" fn(&Child<'_>) -> !,
    child: &Child<'_>,
) -> c_long {
    let made;
    // SAFETY: the parent goes on behind the call as behind any other; the child has a stack of its own and never comes
    // back. The kernel keeps every register but the three.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, {child}",
            "call {run}",
            "2:",
            run = in(reg) run,
            child = in(reg) child,
            inlateout("rax") libc::SYS_clone3 => made,
            in("rdi") arguments,
            in("rsi") size_of::<libc::clone_args>(),
            out("rcx") _,
            out("r11") _,
        );
    }
    // SAFETY: the same; the kernel keeps every register but the result's.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, {child}",
            "blr {run}",
            "2:",
            run = in(reg) run,
            child = in(reg) child,
            inlateout("x0") arguments => made,
            in("x1") size_of::<libc::clone_args>(),
            in("x8") libc::SYS_clone3,
        );
    }
    made
}

#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("Firecracker runs on x86_64 and aarch64");

/// Calls `run` with every signal blocked for this thread, and so for each thread that `run` starts.
pub(crate) fn without_signals<T>(run: impl FnOnce() -> T) -> T {
    let _blocked = Blocked::all();
    run()
}

/// Every signal is blocked for this thread until it is dropped.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        let (mut all, mut before) = (Self::none(), Self::none());
        // SAFETY: the set is there, and filled.
        unsafe { libc::sigfillset(&raw mut all) };
        // SAFETY: both sets are there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before) };
        Self(before)
    }

    fn none() -> libc::sigset_t {
        let mut none = MaybeUninit::uninit();
        // SAFETY: it fills what it is given.
        unsafe { libc::sigemptyset(none.as_mut_ptr()) };
        // SAFETY: it was filled.
        unsafe { none.assume_init() }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set is there.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// `struct pidfd_info` of `linux/pidfd.h`, as of its first version.
#[repr(C)]
#[derive(Debug, Default)]
struct PidfdInfo {
    mask: u64,
    cgroup_id: u64,
    pid: u32,
    tgid: u32,
    ppid: u32,
    ruid: u32,
    rgid: u32,
    euid: u32,
    egid: u32,
    suid: u32,
    sgid: u32,
    fsuid: u32,
    fsgid: u32,
    exit_code: i32,
}

/// `PIDFD_GET_INFO`.
const GET_INFO: Opcode = opcode::read_write::<PidfdInfo>(0xff, 11);

/// `PIDFD_INFO_EXIT`, Linux 6.15.
const INFO_EXIT: u64 = 1 << 3;

/// The wait status of a process that was reaped, by whomever (`ioctl(PIDFD_GET_INFO)`); `None` where the kernel does
/// not know it, or not yet.
///
/// # Errors
/// `ENOTTY` or `EINVAL` on kernels before 6.13.
pub(crate) fn reaped_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the number encodes the size of `PidfdInfo`, which is what the kernel reads and writes.
    let update = unsafe { Updater::<GET_INFO, _>::new(&mut info) };
    // SAFETY: the call has no other effect than to fill `info`, which is plain numbers of the kernel's layout.
    unsafe { ioctl(pidfd, update) }?;
    Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code))
}

//! The raw system calls of the attacks. The program is one attack and ends by a kill: nothing is cleaned up.

#![expect(unsafe_code, reason = "an attacker makes the calls that no safe wrapper offers")]

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;

/// Converts the result of a call to a value or an errno.
fn check(result: i64) -> io::Result<i64> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Runs `child` in a new process (fork(2)); returns its pid. The child never returns.
pub(crate) fn fork(child: impl FnOnce()) -> io::Result<i32> {
    // SAFETY: the child goes on with a copy of this thread alone; the attacks call it before any thread exists, or do
    // nothing but system calls in the child.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        child();
        pause_for_ever();
    }
    check(pid.into()).map(|_| pid)
}

/// Waits for signals for ever (pause(2)).
pub(crate) fn pause_for_ever() -> ! {
    loop {
        // SAFETY: the call takes no argument.
        unsafe { libc::pause() };
    }
}

/// Ends the process at once (_exit(2)).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: nothing of this process is used after it.
    unsafe { libc::_exit(code) }
}

/// Ends the calling thread and no other (exit(2) of the kernel): the leader of a process may go before its threads.
pub(crate) fn exit_thread() -> ! {
    // SAFETY: the call ends the thread; no lock is held by it.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    pause_for_ever()
}

/// Starts a child with vfork(2) that never execs and never exits, so that the parent sleeps in D state for ever.
pub(crate) fn vfork_for_ever() {
    let flags = libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: without CLONE_VM the child has a copy of the memory, as after a fork.
    let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) };
    if pid == 0 {
        pause_for_ever();
    }
}

/// setsid(2).
pub(crate) fn new_session() {
    // SAFETY: the call takes no argument.
    unsafe { libc::setsid() };
}

/// getppid(2).
pub(crate) fn parent() -> i32 {
    // SAFETY: the call takes no argument.
    unsafe { libc::getppid() }
}

/// getpid(2).
pub(crate) fn own_pid() -> i32 {
    // SAFETY: the call takes no argument.
    unsafe { libc::getpid() }
}

/// getuid(2).
pub(crate) fn own_uid() -> u32 {
    // SAFETY: the call takes no argument.
    unsafe { libc::getuid() }
}

/// kill(2).
pub(crate) fn kill(pid: i32, signal: i32) {
    // SAFETY: the arguments are numbers.
    unsafe { libc::kill(pid, signal) };
}

/// Ignores every signal that can be ignored, and blocks all (signal(2), sigprocmask(2)).
pub(crate) fn hear_no_signal() {
    for number in 1..65 {
        // SAFETY: `SIG_IGN` is no function of ours; a refused signal is left alone.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
    let mut all = std::mem::MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the call fills the set.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the set was filled by the line before and outlives the call.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut()) };
}

/// Ignores one signal (signal(2)).
pub(crate) fn ignore(number: i32) {
    // SAFETY: `SIG_IGN` is no function of ours.
    unsafe { libc::signal(number, libc::SIG_IGN) };
}

/// prctl(PR_SET_NAME).
pub(crate) fn set_name(name: &CStr) {
    // SAFETY: the kernel copies at most 16 bytes of a string that ends in NUL.
    unsafe { libc::prctl(libc::PR_SET_NAME, name.as_ptr()) };
}

/// A limit of this process, soft and hard (setrlimit(2)).
pub(crate) fn limit(resource: libc::__rlimit_resource_t, value: u64) {
    let limit = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: the struct outlives the call, which only reads it.
    unsafe { libc::setrlimit(resource, &raw const limit) };
}

/// `struct prctl_mm_map` of `linux/prctl.h`.
#[repr(C)]
struct MemoryMap {
    start_code: u64,
    end_code: u64,
    start_data: u64,
    end_data: u64,
    start_brk: u64,
    brk: u64,
    start_stack: u64,
    arg_start: u64,
    arg_end: u64,
    env_start: u64,
    env_end: u64,
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Has `/proc/<pid>/cmdline` and `environ` show `bytes` bytes of memory each, none of which is there yet
/// (PR_SET_MM_MAP, which takes no privilege).
pub(crate) fn show_huge_arguments(bytes: usize) -> io::Result<()> {
    const PR_SET_MM_MAP: libc::c_ulong = 14;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    let protection = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
    let at = unsafe { libc::mmap(ptr::null_mut(), bytes, protection, flags, -1, 0) };
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    let last = at.cast::<u8>().wrapping_add(bytes - 1);
    // SAFETY: the mapping is ours, writable, and `bytes` long.
    unsafe { last.write(b'x') };
    // SAFETY: the call reads no memory.
    let brk = unsafe { libc::sbrk(0) } as u64;
    let (start, end) = (at as u64, at as u64 + bytes as u64);
    let map = MemoryMap {
        start_code: start,
        end_code: end,
        start_data: start,
        end_data: end,
        start_brk: brk,
        brk,
        start_stack: start,
        arg_start: start,
        arg_end: end,
        env_start: start,
        env_end: end,
        auxv: 0,
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    // As long as a register: the call is variadic.
    let none: libc::c_ulong = 0;
    // SAFETY: the struct has the kernel's layout and outlives the call. The fields are what `/proc` shows; only `brk`
    // is used by the allocator, and keeps its value.
    let set = unsafe {
        libc::prctl(libc::PR_SET_MM, PR_SET_MM_MAP, &raw const map, size_of::<MemoryMap>(), none)
    };
    check(set.into()).map(drop)
}

/// Becomes `program` with these arguments and this environment (execve(2)).
pub(crate) fn exec(program: &CStr, arguments: &[CString], environment: &[CString]) -> io::Error {
    let list = |words: &[CString]| {
        words.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect::<Vec<_>>()
    };
    let (arguments, environment) = (list(arguments), list(environment));
    // SAFETY: both lists end in a null pointer, and their strings outlive the call.
    unsafe { libc::execve(program.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
    io::Error::last_os_error()
}

/// unshare(2).
pub(crate) fn unshare(flags: i32) -> io::Result<()> {
    // SAFETY: the argument is a number; no memory is unshared.
    check(unsafe { libc::unshare(flags) }.into()).map(drop)
}

/// Calls chroot(2), and changes the working directory to the new root.
pub(crate) fn change_root(path: &CStr) -> io::Result<()> {
    // SAFETY: the string ends in NUL and outlives the call.
    check(unsafe { libc::chroot(path.as_ptr()) }.into())?;
    std::env::set_current_dir("/")
}

/// mount(2).
pub(crate) fn mount(source: &CStr, target: &CStr, kind: &CStr, flags: u64) -> io::Result<()> {
    let (source, target, kind) = (source.as_ptr(), target.as_ptr(), kind.as_ptr());
    // SAFETY: the strings end in NUL and outlive the call.
    check(unsafe { libc::mount(source, target, kind, flags, ptr::null()) }.into()).map(drop)
}

/// Attaches to a process, which stops (PTRACE_ATTACH).
pub(crate) fn trace(pid: i32) -> io::Result<()> {
    let nothing = ptr::null_mut::<libc::c_void>();
    // SAFETY: the request takes no memory of ours.
    check(unsafe { libc::ptrace(libc::PTRACE_ATTACH, pid, nothing, nothing) }).map(drop)
}

/// A shared memory segment of System V, filled, a semaphore set and a message queue (shmget(2), semget(2), msgget(2)).
pub(crate) fn system_v(bytes: usize) -> io::Result<()> {
    // SAFETY: the arguments are numbers.
    let id = unsafe { libc::shmget(libc::IPC_PRIVATE, bytes, libc::IPC_CREAT | 0o777) };
    check(id.into())?;
    // SAFETY: a new mapping at a place of the kernel's choice touches no memory of ours.
    let at = unsafe { libc::shmat(id, ptr::null(), 0) };
    if at as isize == -1 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the segment is ours, writable, and `bytes` long.
    unsafe { at.cast::<u8>().write_bytes(1, bytes) };
    // SAFETY: the arguments are numbers.
    check(unsafe { libc::semget(libc::IPC_PRIVATE, 16, libc::IPC_CREAT | 0o777) }.into())?;
    // SAFETY: the arguments are numbers.
    check(unsafe { libc::msgget(libc::IPC_PRIVATE, libc::IPC_CREAT | 0o777) }.into()).map(drop)
}

/// A message queue of POSIX that holds a message (mq_open(3), mq_send(3)).
pub(crate) fn message_queue(name: &CStr) -> io::Result<()> {
    let flags = libc::O_CREAT | libc::O_RDWR;
    // SAFETY: the string ends in NUL; without attributes the kernel's defaults are used.
    let queue =
        unsafe { libc::mq_open(name.as_ptr(), flags, 0o777, ptr::null_mut::<libc::mq_attr>()) };
    check(queue.into())?;
    let text = b"left";
    // SAFETY: the message outlives the call.
    check(unsafe { libc::mq_send(queue, text.as_ptr().cast(), text.len(), 1) }.into()).map(drop)
}

/// An anonymous file in memory of this size, filled (memfd_create(2)); its descriptor stays open.
pub(crate) fn memory_file(bytes: usize) -> io::Result<RawFd> {
    // SAFETY: the string ends in NUL.
    let fd = unsafe { libc::memfd_create(c"hoard".as_ptr(), 0) };
    check(fd.into())?;
    let block = vec![1_u8; 1 << 20];
    for _ in 0..bytes >> 20 {
        // SAFETY: the block outlives the call.
        check(unsafe { libc::write(fd, block.as_ptr().cast(), block.len()) } as i64)?;
    }
    Ok(fd)
}

/// A key with this description in a special keyring, such as -4, the user's (add_key(2)).
pub(crate) fn add_key(description: &CStr, keyring: i32) -> io::Result<()> {
    let secret = b"a secret of this tenant";
    // SAFETY: the strings end in NUL, the payload outlives the call.
    let key = unsafe {
        libc::syscall(
            libc::SYS_add_key,
            c"user".as_ptr(),
            description.as_ptr(),
            secret.as_ptr(),
            secret.len(),
            keyring,
        )
    };
    check(key).map(drop)
}

/// The persistent keyring of this user, linked to the process's keyring (keyctl_get_persistent(3)).
pub(crate) fn persistent_keyring() -> io::Result<i32> {
    let (get_persistent, own_uid, process_keyring) = (22, -1, -2);
    // SAFETY: the arguments are numbers.
    let key = unsafe { libc::syscall(libc::SYS_keyctl, get_persistent, own_uid, process_keyring) };
    check(key)?;
    i32::try_from(key).map_err(io::Error::other)
}

/// As many inotify instances as the user may have, each with a watch on `/` (inotify_init(2)); how many.
pub(crate) fn watch_all() -> usize {
    let mut made = 0;
    loop {
        // SAFETY: the call takes no memory.
        let fd = unsafe { libc::inotify_init1(0) };
        if fd < 0 {
            return made;
        }
        // SAFETY: the string ends in NUL.
        unsafe { libc::inotify_add_watch(fd, c"/".as_ptr(), libc::IN_ALL_EVENTS) };
        made += 1;
    }
}

/// Takes every lock there is on an open file: flock(2), POSIX and open-file-description record locks, and a lease.
pub(crate) fn lock(file: &impl AsRawFd, lease: bool) {
    let fd = file.as_raw_fd();
    if lease {
        for kind in [libc::F_WRLCK, libc::F_RDLCK] {
            // SAFETY: the arguments are numbers.
            if unsafe { libc::fcntl(fd, libc::F_SETLEASE, kind) } == 0 {
                return;
            }
        }
    }
    for exclusive in [libc::LOCK_EX, libc::LOCK_SH] {
        // SAFETY: the arguments are numbers.
        if unsafe { libc::flock(fd, exclusive | libc::LOCK_NB) } == 0 {
            break;
        }
    }
    // SAFETY: all fields of the struct are numbers, for which zero is a value.
    let mut range: libc::flock = unsafe { std::mem::zeroed() };
    for command in [libc::F_OFD_SETLK, libc::F_SETLK] {
        for kind in [libc::F_WRLCK, libc::F_RDLCK] {
            range.l_type = i16::try_from(kind).unwrap_or_default();
            // SAFETY: the struct outlives the call, which only reads it.
            unsafe { libc::fcntl(fd, command, &raw const range) };
        }
    }
}

/// fcntl(2) with a number; whether it went well.
pub(crate) fn control(fd: RawFd, command: i32, argument: i32) -> bool {
    // SAFETY: the arguments are numbers.
    unsafe { libc::fcntl(fd, command, argument) >= 0 }
}

/// Reads a descriptor from the start (pread(2), read(2)). Returns the number of bytes.
pub(crate) fn read_back(fd: RawFd) -> usize {
    let mut buffer = vec![0_u8; 4096];
    let (at, length) = (buffer.as_mut_ptr().cast(), buffer.len());
    // SAFETY: the buffer is `length` long and outlives the call.
    let seen = unsafe { libc::pread(fd, at, length, 0) };
    // SAFETY: the arguments are numbers.
    unsafe { libc::ftruncate(fd, 0) };
    // SAFETY: the buffer is as long as the call is told, and outlives it.
    unsafe { libc::pwrite(fd, b"forged".as_ptr().cast(), 6, 0) };
    usize::try_from(seen).unwrap_or(0)
}

/// A named pipe (mkfifo(3)).
pub(crate) fn make_fifo(path: &CStr) {
    // SAFETY: the string ends in NUL and outlives the call.
    unsafe { libc::mkfifo(path.as_ptr(), 0o666) };
}

/// A listening Unix socket of another kind than a stream's, bound to `path` (socket(2), bind(2)).
pub(crate) fn bind_other_kind(path: &[u8], kind: i32) -> io::Result<RawFd> {
    // SAFETY: the arguments are numbers.
    let fd = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
    check(fd.into())?;
    // SAFETY: all fields of the struct are numbers, for which zero is a value.
    let mut address: libc::sockaddr_un = unsafe { std::mem::zeroed() };
    address.sun_family = u16::try_from(libc::AF_UNIX).unwrap_or_default();
    for (to, from) in address.sun_path.iter_mut().zip(path) {
        *to = from.cast_signed();
    }
    let length = u32::try_from(size_of::<u16>() + path.len()).unwrap_or_default();
    // SAFETY: the address is longer than `length` and outlives the call.
    check(unsafe { libc::bind(fd, (&raw const address).cast(), length) }.into())?;
    // SAFETY: the arguments are numbers.
    unsafe { libc::listen(fd, 1) };
    Ok(fd)
}

/// listen(2) again, with another backlog.
pub(crate) fn set_backlog(listener: &impl AsRawFd, backlog: i32) {
    // SAFETY: the arguments are numbers.
    unsafe { libc::listen(listener.as_raw_fd(), backlog) };
}

/// Sends `bytes` with the largest number of copies of `fd` in one message (sendmsg(2), SCM_RIGHTS).
pub(crate) fn send_descriptors(socket: &impl AsRawFd, bytes: &[u8], fd: RawFd) -> io::Result<()> {
    const MANY: usize = 253;
    let data = size_of::<[RawFd; MANY]>();
    // SAFETY: the call only computes.
    let space = unsafe { libc::CMSG_SPACE(u32::try_from(data).unwrap_or_default()) } as usize;
    // Words, for the header in it must be aligned.
    let mut control = vec![0_u64; space.div_ceil(8)];
    let mut part = libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() };
    // SAFETY: all fields of the struct are numbers and pointers, for which zero is a value.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = space as _;
    // SAFETY: the message was filled in above.
    let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
    // SAFETY: the control buffer has room for a header, so the pointer is into it, aligned, and used by nobody else.
    let header = unsafe { &mut *header };
    header.cmsg_level = libc::SOL_SOCKET;
    header.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: the call only computes.
    header.cmsg_len = unsafe { libc::CMSG_LEN(u32::try_from(data).unwrap_or_default()) } as _;
    // SAFETY: the header is in a buffer that is longer than the header.
    let descriptors = unsafe { libc::CMSG_DATA(header) }.cast::<[RawFd; MANY]>();
    // SAFETY: the header's data lies in the control buffer, which has room for `MANY` descriptors.
    unsafe { descriptors.write_unaligned([fd; MANY]) };
    // SAFETY: everything the message points to outlives the call.
    check(
        unsafe { libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) } as i64
    )
    .map(drop)
}

/// close(2).
pub(crate) fn close(fd: RawFd) {
    // SAFETY: the standard streams are not used after it, or fail.
    unsafe { libc::close(fd) };
}

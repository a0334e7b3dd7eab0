//! The system calls that can fail, with the errnos of each.

use nix::errno::Errno;
use nix::libc;

/// The facts about a system call.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// The call's name.
    pub name: &'static str,
    /// The errnos of the call on a host that is short of a resource, broken or locked down.
    pub errnos: &'static [Errno],
    /// True if the call is about a file; the error must then name the file.
    pub about_a_file: bool,
}

/// Returns the facts about the system call `number` with these arguments, or `None` for an unknown call.
#[must_use]
pub fn known(number: i64, arguments: [u64; 4]) -> Option<Known> {
    use Errno::{
        EACCES, EAGAIN, EBUSY, ECONNREFUSED, ECONNRESET, EDQUOT, EFBIG, EINTR, EINVAL, EIO, EMFILE,
        EMLINK, ENFILE, ENOBUFS, ENOLCK, ENOMEM, ENOSPC, ENOTTY, EOPNOTSUPP, EPERM, EPIPE, EROFS,
        EXDEV,
    };
    let file = |name, errnos| Some(Known { name, errnos, about_a_file: true });
    let other = |name, errnos| Some(Known { name, errnos, about_a_file: false });
    // Of the C library's and the standard library's own: they cannot fail, or nobody could do anything about it.
    let runtime = |name| Some(Known { name, errnos: &[], about_a_file: false });
    match number {
        libc::SYS_openat => file("openat", &[EACCES, EINTR, EIO, EMFILE, ENFILE, ENOMEM]),
        libc::SYS_openat2 => file("openat2", &[EACCES, EAGAIN, EINTR, EIO, EMFILE, ENFILE, ENOMEM]),
        libc::SYS_close => other("close", &[EINTR, EIO]),
        libc::SYS_read => other("read", &[EINTR, EIO]),
        libc::SYS_pread64 => other("pread64", &[EINTR, EIO]),
        libc::SYS_write => other("write", &[EDQUOT, EINTR, EIO, ENOSPC]),
        libc::SYS_pwrite64 => other("pwrite64", &[EDQUOT, EINTR, EIO, ENOSPC]),
        libc::SYS_fstat => file("fstat", &[EIO, ENOMEM]),
        libc::SYS_newfstatat => file("newfstatat", &[EACCES, EIO, ENOMEM]),
        libc::SYS_statx => file("statx", &[EACCES, EIO, ENOMEM]),
        libc::SYS_fstatfs => file("fstatfs", &[EINTR, EIO, ENOMEM]),
        libc::SYS_access | libc::SYS_faccessat | libc::SYS_faccessat2 => {
            file("access", &[EACCES, EIO])
        }
        libc::SYS_getdents64 => file("getdents64", &[EIO]),
        libc::SYS_lseek => file("lseek", &[EINVAL, EIO]),
        libc::SYS_readlink => file("readlink", &[EACCES, EIO, ENOMEM]),
        libc::SYS_readlinkat => file("readlinkat", &[EACCES, EIO, ENOMEM]),
        libc::SYS_mkdirat => file("mkdirat", &[EACCES, EDQUOT, EIO, EMLINK, ENOSPC, EROFS]),
        libc::SYS_unlinkat => file("unlinkat", &[EACCES, EBUSY, EIO, EPERM, EROFS]),
        libc::SYS_renameat => file("renameat", &[EDQUOT, EIO, ENOSPC, EROFS]),
        libc::SYS_fsetxattr => file("fsetxattr", &[EIO, ENOSPC, EOPNOTSUPP, EPERM]),
        libc::SYS_renameat2 => file("renameat2", &[EDQUOT, EINVAL, EIO, ENOSPC, EROFS]),
        libc::SYS_linkat => file("linkat", &[EDQUOT, EIO, EMLINK, ENOSPC, EPERM, EXDEV]),
        libc::SYS_fchown => file("fchown", &[EDQUOT, EIO, EPERM, EROFS]),
        libc::SYS_fchownat => file("fchownat", &[EDQUOT, EIO, EPERM, EROFS]),
        libc::SYS_fchmod => file("fchmod", &[EIO, EPERM, EROFS]),
        libc::SYS_mknodat => file("mknodat", &[EDQUOT, EIO, ENOSPC, EPERM, EROFS]),
        libc::SYS_flock => file("flock", &[EAGAIN, EINTR, ENOLCK]),
        libc::SYS_ftruncate => file("ftruncate", &[EFBIG, EINTR, EIO]),
        libc::SYS_fallocate => file("fallocate", &[EIO, ENOSPC, EOPNOTSUPP]),
        libc::SYS_fsync => file("fsync", &[EIO, ENOSPC]),
        libc::SYS_fdatasync => file("fdatasync", &[EIO, ENOSPC]),
        libc::SYS_copy_file_range => {
            file("copy_file_range", &[EDQUOT, EINTR, EIO, ENOSPC, EOPNOTSUPP, EXDEV])
        }
        libc::SYS_ioctl => other("ioctl", &[EIO, ENOTTY, EOPNOTSUPP]),
        libc::SYS_getxattr | libc::SYS_lgetxattr | libc::SYS_fgetxattr => {
            file("getxattr", &[EIO, EOPNOTSUPP])
        }
        libc::SYS_listxattr | libc::SYS_llistxattr | libc::SYS_flistxattr => {
            file("listxattr", &[EIO, EOPNOTSUPP])
        }
        libc::SYS_inotify_init1 => other("inotify_init1", &[EMFILE, ENFILE, ENOMEM]),
        libc::SYS_inotify_add_watch => other("inotify_add_watch", &[EACCES, ENOMEM, ENOSPC]),
        libc::SYS_pipe2 => other("pipe2", &[EMFILE, ENFILE]),
        libc::SYS_dup | libc::SYS_dup2 | libc::SYS_dup3 => other("dup", &[EMFILE]),
        libc::SYS_fcntl if arguments[1] == 0x406 => other("fcntl", &[EMFILE]),
        libc::SYS_clone => other("clone", &[EAGAIN, ENOMEM]),
        libc::SYS_clone3 => other("clone3", &[EAGAIN, ENOMEM]),
        libc::SYS_pidfd_open => other("pidfd_open", &[EMFILE, ENFILE, ENOMEM]),
        libc::SYS_pidfd_send_signal => other("pidfd_send_signal", &[EPERM]),
        // Tried by the checks of the host, with arguments that they refuse.
        libc::SYS_close_range => other("close_range", &[EPERM]),
        libc::SYS_keyctl => other("keyctl", &[EPERM]),
        libc::SYS_seccomp => other("seccomp", &[EPERM]),
        libc::SYS_unshare => other("unshare", &[ENOMEM, ENOSPC, EPERM]),
        libc::SYS_setns => other("setns", &[EPERM]),
        libc::SYS_mount => other("mount", &[EPERM]),
        libc::SYS_umount2 => other("umount2", &[EPERM]),
        libc::SYS_pivot_root => other("pivot_root", &[EPERM]),
        libc::SYS_waitid => other("waitid", &[EINTR]),
        libc::SYS_wait4 => other("wait4", &[EINTR]),
        libc::SYS_poll => other("poll", &[EINTR, ENOMEM]),
        libc::SYS_ppoll => other("ppoll", &[EINTR, ENOMEM]),
        libc::SYS_epoll_create1 => other("epoll_create1", &[EMFILE, ENFILE, ENOMEM]),
        libc::SYS_epoll_ctl => other("epoll_ctl", &[ENOMEM, ENOSPC]),
        libc::SYS_epoll_wait | libc::SYS_epoll_pwait => other("epoll_wait", &[EINTR]),
        libc::SYS_eventfd2 => other("eventfd2", &[EMFILE, ENFILE, ENOMEM]),
        libc::SYS_socket => other("socket", &[EMFILE, ENFILE, ENOBUFS, ENOMEM]),
        libc::SYS_setsockopt => other("setsockopt", &[ENOMEM]),
        libc::SYS_getsockopt => other("getsockopt", &[ENOBUFS]),
        libc::SYS_connect => other("connect", &[EACCES, EAGAIN, ECONNREFUSED, EINTR]),
        libc::SYS_sendto => other("sendto", &[ECONNRESET, EINTR, ENOBUFS, EPIPE]),
        libc::SYS_recvfrom => other("recvfrom", &[EAGAIN, ECONNRESET, EINTR]),
        libc::SYS_getrandom => other("getrandom", &[EINTR]),
        libc::SYS_nanosleep | libc::SYS_clock_nanosleep => other("clock_nanosleep", &[EINTR]),
        // A thread's stack, which is made without any access at first. Its alternative one is the standard library's, which
        // ends the process where there is none.
        libc::SYS_mmap if arguments[2] == 0 && arguments[3] & stack() != 0 => {
            other("mmap", &[EAGAIN, ENOMEM])
        }
        libc::SYS_mmap => runtime("mmap"),
        libc::SYS_fcntl => runtime("fcntl"),
        libc::SYS_brk => runtime("brk"),
        libc::SYS_munmap => runtime("munmap"),
        libc::SYS_mremap => runtime("mremap"),
        libc::SYS_mprotect => runtime("mprotect"),
        libc::SYS_madvise => runtime("madvise"),
        libc::SYS_futex => runtime("futex"),
        libc::SYS_sched_yield => runtime("sched_yield"),
        libc::SYS_sched_getaffinity => runtime("sched_getaffinity"),
        libc::SYS_set_robust_list => runtime("set_robust_list"),
        libc::SYS_rseq => runtime("rseq"),
        libc::SYS_sigaltstack => runtime("sigaltstack"),
        libc::SYS_rt_sigaction => runtime("rt_sigaction"),
        libc::SYS_rt_sigprocmask => runtime("rt_sigprocmask"),
        libc::SYS_rt_sigreturn => runtime("rt_sigreturn"),
        libc::SYS_restart_syscall => runtime("restart_syscall"),
        libc::SYS_prctl => runtime("prctl"),
        libc::SYS_gettid => runtime("gettid"),
        libc::SYS_getpid => runtime("getpid"),
        libc::SYS_getuid => runtime("getuid"),
        libc::SYS_geteuid => runtime("geteuid"),
        libc::SYS_getgid => runtime("getgid"),
        libc::SYS_getegid => runtime("getegid"),
        // Of a uid that no process has, `ESRCH` is the answer; it has no other.
        libc::SYS_getpriority => runtime("getpriority"),
        libc::SYS_capget => runtime("capget"),
        libc::SYS_prlimit64 => runtime("prlimit64"),
        libc::SYS_open => file("open", &[EACCES, EINTR, EIO, EMFILE, ENFILE, ENOMEM]),
        libc::SYS_uname => runtime("uname"),
        libc::SYS_clock_gettime => runtime("clock_gettime"),
        libc::SYS_exit => runtime("exit"),
        libc::SYS_exit_group => runtime("exit_group"),
        _ => None,
    }
}

fn stack() -> u64 {
    u64::from(libc::MAP_STACK.unsigned_abs())
}

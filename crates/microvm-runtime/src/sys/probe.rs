//! Asking whether a system call exists and is allowed: each call gets arguments that the kernel refuses before it does
//! anything.

use std::ffi::c_long;
use std::io;

/// A system call, with arguments that make the call fail without effect.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Probe {
    pub(crate) name: &'static str,
    number: c_long,
    arguments: [c_long; 5],
}

const fn probe(name: &'static str, number: c_long, arguments: [c_long; 5]) -> Probe {
    Probe { name, number, arguments }
}

/// No descriptor.
const NONE: c_long = -1;
/// Flags that no call has.
const BAD: c_long = 0x4000_0000;

/// The calls of this crate that an older kernel lacks or a container's filter often refuses.
pub(crate) const OURS: &[Probe] = &[
    // A size of 0 is too small for the structure.
    probe("openat2", libc::SYS_openat2, [NONE, 0, 0, 0, 0]),
    probe("clone3", libc::SYS_clone3, [0, 0, 0, 0, 0]),
    probe("pidfd_open", libc::SYS_pidfd_open, [NONE, BAD, 0, 0, 0]),
    probe("pidfd_send_signal", libc::SYS_pidfd_send_signal, [NONE, 0, 0, BAD, 0]),
    // The last descriptor comes before the first.
    probe("close_range", libc::SYS_close_range, [1, 0, 0, 0, 0]),
    probe("statx", libc::SYS_statx, [NONE, 0, 0x6000, 0, 0]),
    probe("renameat2", libc::SYS_renameat2, [NONE, 0, NONE, 0, BAD]),
    probe("prlimit64", libc::SYS_prlimit64, [0, BAD, 0, 0, 0]),
];

/// The calls of a spawn and of the jailer, asked of a process with `CAP_SYS_ADMIN`: without it the kernel refuses
/// pivot_root before its arguments.
pub(crate) const JAILERS: &[Probe] = &[
    probe("keyctl", libc::SYS_keyctl, [0xffff, 0, 0, 0, 0]),
    // SECCOMP_SET_MODE_FILTER without a filter.
    probe("seccomp", libc::SYS_seccomp, [1, 0, 0, 0, 0]),
    probe("unshare", libc::SYS_unshare, [1, 0, 0, 0, 0]),
    probe("setns", libc::SYS_setns, [NONE, 0, 0, 0, 0]),
    probe("mount", libc::SYS_mount, [0, 0, 0, 0, 0]),
    probe("umount2", libc::SYS_umount2, [0, BAD, 0, 0, 0]),
    probe("pivot_root", libc::SYS_pivot_root, [0, 0, 0, 0, 0]),
    // A kind of file that does not exist.
    probe("mknodat", libc::SYS_mknodat, [NONE, 0, 0xf000, 0, 0]),
    probe("fchownat", libc::SYS_fchownat, [NONE, 0, 0, 0, BAD]),
];

impl Probe {
    /// Makes the call and returns the errno.
    pub(crate) fn errno(self) -> i32 {
        let [a, b, c, d, e] = self.arguments;
        // SAFETY: no pointer is passed, and with these arguments the kernel refuses the call before it does anything.
        let result = unsafe { libc::syscall(self.number, a, b, c, d, e, 0) };
        if result == 0 { 0 } else { io::Error::last_os_error().raw_os_error().unwrap_or_default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_change_nothing() {
        for probe in OURS {
            let errno = probe.errno();
            let refused = [libc::EINVAL, libc::EBADF, libc::EFAULT];
            assert!(refused.contains(&errno), "{}: {errno}", probe.name);
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn probes_of_the_jailers_calls_change_nothing() {
        for probe in JAILERS {
            let errno = probe.errno();
            let refused = [libc::EINVAL, libc::EBADF, libc::EFAULT, libc::EOPNOTSUPP, libc::ENOSYS];
            assert!(refused.contains(&errno), "{}: {errno}", probe.name);
        }
    }
}

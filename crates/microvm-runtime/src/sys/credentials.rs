//! The user and the capabilities that a new process starts with.

use std::ffi::{c_int, c_long};

/// `_LINUX_CAPABILITY_VERSION_3` of `linux/capability.h`.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct`.
#[repr(C)]
struct Header {
    version: u32,
    pid: c_int,
}

/// `struct __user_cap_data_struct`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Sets {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// Changes this process to root with only root's group, and clears the ambient and inheritable capabilities. Returns
/// false if the kernel refuses (`errno`).
///
/// The kernel takes all capabilities from a process that goes from uid 0 to another, and from no other. A jailer that
/// some user with capabilities of its own started would hand those on to the VMM: so would ambient ones.
///
/// Raw calls: libc's would change every thread of the parent, whose memory a new process shares.
pub(super) fn become_root() -> bool {
    let call = |number: c_long, arguments: [c_long; 3]| {
        let [a, b, c] = arguments;
        // SAFETY: each call below takes numbers, or an empty list, and changes this process alone.
        unsafe { libc::syscall(number, a, b, c, 0, 0) == 0 }
    };
    call(libc::SYS_setgroups, [0, 0, 0])
        && call(libc::SYS_setresgid, [0, 0, 0])
        && call(libc::SYS_setresuid, [0, 0, 0])
        && call(
            libc::SYS_prctl,
            [libc::PR_CAP_AMBIENT.into(), libc::PR_CAP_AMBIENT_CLEAR_ALL.into(), 0],
        )
        && inherit_nothing()
}

fn inherit_nothing() -> bool {
    let mut header = Header { version: VERSION, pid: 0 };
    let mut sets = [Sets { effective: 0, permitted: 0, inheritable: 0 }; 2];
    // SAFETY: both structures are the kernel's; two sets are what this version takes.
    if unsafe { libc::syscall(libc::SYS_capget, &raw mut header, &raw mut sets) } != 0 {
        return false;
    }
    for set in &mut sets {
        set.inheritable = 0;
    }
    // SAFETY: as for the call before; this one changes this process alone.
    unsafe { libc::syscall(libc::SYS_capset, &raw mut header, &raw const sets) == 0 }
}

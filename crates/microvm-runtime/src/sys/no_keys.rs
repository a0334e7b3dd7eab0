//! A filter of system calls that takes the kernel's keys from a process, and from all that the process starts: keys in
//! keyrings, keys of filesystems, and subvolumes.

use std::ffi::c_long;

/// `AUDIT_ARCH_…` of `linux/audit.h`, and the numbers of `ioctl(2)` and `add_key(2)`. Each architecture numbers `add_key`,
/// `request_key` and `keyctl` one after the other.
struct Calls {
    architecture: u32,
    ioctl: u32,
    first: u32,
}

#[cfg(target_arch = "x86_64")]
const NATIVE: Calls = Calls { architecture: 0xc000_003e, ioctl: 16, first: 248 };
#[cfg(target_arch = "x86_64")]
const COMPAT: Calls = Calls { architecture: 0x4000_0003, ioctl: 54, first: 286 };

#[cfg(target_arch = "aarch64")]
const NATIVE: Calls = Calls { architecture: 0xc000_00b7, ioctl: 29, first: 217 };
#[cfg(target_arch = "aarch64")]
const COMPAT: Calls = Calls { architecture: 0x4000_0028, ioctl: 54, first: 309 };

/// The number of calls from the first on.
const CALLS: u32 = 3;

/// The bit of a call's number that marks the x32 calls of `x86_64`, which have an `ioctl` of their own. No jailer makes them.
const X32: u32 = 0x4000_0000;

/// `FS_IOC_ADD_ENCRYPTION_KEY` of `linux/fscrypt.h`, on every architecture.
const ADD_ENCRYPTION_KEY: u32 = 0xc050_6617;

/// The letter of each request of `linux/btrfs.h`, in the second byte: any user may make a subvolume, and make it read-only,
/// after which nothing in it can be removed.
const LETTER: u32 = 0xff00;
const BTRFS: u32 = 0x9400;

/// Offsets in `struct seccomp_data`, and of the lower half of the second argument on a little-endian machine: the kernel does
/// not look at the other half of an ioctl's request.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const REQUEST: u32 = 24;

const fn load(offset: u32) -> libc::sock_filter {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

const fn jump(condition: u32, value: u32, then: u8, otherwise: u8) -> libc::sock_filter {
    instruction(libc::BPF_JMP | condition | libc::BPF_K, value, then, otherwise)
}

const fn answer(value: u32) -> libc::sock_filter {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

#[expect(clippy::cast_possible_truncation, reason = "a code has 8 bits")]
const fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

/// Answers the calls with `ENOSYS`, as a kernel without keys does. A jump counts from the instruction behind the jump.
///
/// Only instructions that the kernel evaluates once per call number and remembers (Linux 5.11), so that no other call than
/// `ioctl` of a VMM gets slower.
static FILTER: [libc::sock_filter; 18] = [
    load(ARCHITECTURE),
    jump(libc::BPF_JEQ, NATIVE.architecture, 0, 5),
    load(NUMBER),
    jump(libc::BPF_JGE, X32, 13, 0),
    jump(libc::BPF_JEQ, NATIVE.ioctl, 7, 0),
    jump(libc::BPF_JGE, NATIVE.first, 0, 10),
    jump(libc::BPF_JGE, NATIVE.first + CALLS, 9, 10),
    jump(libc::BPF_JEQ, COMPAT.architecture, 0, 9),
    load(NUMBER),
    jump(libc::BPF_JEQ, COMPAT.ioctl, 2, 0),
    jump(libc::BPF_JGE, COMPAT.first, 0, 5),
    jump(libc::BPF_JGE, COMPAT.first + CALLS, 4, 5),
    load(REQUEST),
    jump(libc::BPF_JEQ, ADD_ENCRYPTION_KEY, 3, 0),
    instruction(libc::BPF_ALU | libc::BPF_AND | libc::BPF_K, LETTER, 0, 0),
    jump(libc::BPF_JEQ, BTRFS, 1, 0),
    answer(libc::SECCOMP_RET_ALLOW),
    answer(libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs()),
];

/// Takes `add_key(2)`, `request_key(2)`, `keyctl(2)`, `FS_IOC_ADD_ENCRYPTION_KEY` and the ioctls of btrfs from this process for ever (`seccomp(2)`).
/// Returns false if the kernel refuses (`errno`). Takes `CAP_SYS_ADMIN`.
///
/// A uid's keyrings outlive the uid's last process: what one VM leaves in them, the next VM with the uid would read. No key of
/// a VM exists and none is found if a VM has no call for keys. A key that a VM adds to a filesystem outlives the VM as well, and
/// without that key an encrypted directory of the VM could not be emptied. The same holds for a read-only subvolume.
pub(super) fn refuse_keys() -> bool {
    let filter = FILTER.as_ptr().cast_mut();
    #[expect(clippy::cast_possible_truncation, reason = "it has eighteen instructions")]
    let program = libc::sock_fprog { len: FILTER.len() as u16, filter };
    // Without this flag, Linux before 5.16 also slows each process with a filter down (speculative store bypass).
    let flags = libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW as c_long;
    // SAFETY: the kernel copies the program and its instructions, which outlive the call; the filter is this process's own, as
    // SECCOMP_FILTER_FLAG_TSYNC is not set.
    let set = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            c_long::from(libc::SECCOMP_SET_MODE_FILTER),
            flags,
            &raw const program,
        )
    };
    set == 0
}

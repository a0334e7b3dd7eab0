//! The calls that need `unsafe`: ioctls of the loop driver (loop(4)), of KVM and of the tun driver, signals, a timer
//! and a seccomp filter.

#![expect(unsafe_code, reason = "ioctl(2) and what a test inherits have no safe wrapper")]

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::errno::Errno;
use nix::libc;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

nix::ioctl_none_bad!(loop_ctl_get_free, 0x4C82);
nix::ioctl_write_ptr_bad!(loop_configure, 0x4C0A, LoopConfig);
nix::ioctl_none_bad!(loop_clr_fd, 0x4C01);
// KVM requires the argument 0.
nix::ioctl_write_int_bad!(get_api_version, nix::request_code_none!(0xAE, 0x00));
nix::ioctl_write_int_bad!(create_vm, nix::request_code_none!(0xAE, 0x01));
nix::ioctl_write_ptr_bad!(
    tun_set_iff,
    nix::request_code_write!(b'T', 202, size_of::<u32>()),
    TapRequest
);
nix::ioctl_write_int_bad!(tun_set_persist, nix::request_code_write!(b'T', 203, size_of::<u32>()));
nix::ioctl_write_int_bad!(tun_set_owner, nix::request_code_write!(b'T', 204, size_of::<u32>()));

/// `IFF_TAP | IFF_NO_PI | IFF_VNET_HDR`, the flags that Firecracker uses.
const TAP: u16 = 0x0002 | 0x1000 | 0x4000;

/// `struct ifreq` of `linux/if.h`, the argument of `TUNSETIFF`.
#[repr(C)]
#[derive(Debug)]
struct TapRequest {
    name: [u8; 16],
    flags: u16,
    rest: [u8; 22],
}

/// `LO_FLAGS_AUTOCLEAR`: the kernel detaches the device after the last user has closed the device.
const AUTOCLEAR: u32 = 4;

/// `struct loop_config` of `linux/loop.h`.
#[repr(C)]
#[derive(Debug)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    info: LoopInfo64,
    reserved: [u64; 8],
}

/// `struct loop_info64` of `linux/loop.h`.
#[repr(C)]
#[derive(Debug)]
struct LoopInfo64 {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// Returns the number of a loop device that is free, until another process takes the device (`LOOP_CTL_GET_FREE`).
pub(crate) fn free_loop_number(control: &File) -> nix::Result<i32> {
    // SAFETY: the ioctl takes no argument and touches no memory of ours.
    unsafe { loop_ctl_get_free(control.as_raw_fd()) }
}

/// Attaches `backing` to the loop device, until the last user has closed the device (`LOOP_CONFIGURE`, Linux 5.8).
pub(crate) fn configure_loop(device: &File, backing: BorrowedFd<'_>) -> nix::Result<()> {
    let config = LoopConfig {
        // A descriptor is never negative.
        fd: backing.as_fd().as_raw_fd().unsigned_abs(),
        block_size: 0,
        info: LoopInfo64 {
            device: 0,
            inode: 0,
            rdevice: 0,
            offset: 0,
            size_limit: 0,
            number: 0,
            encrypt_type: 0,
            encrypt_key_size: 0,
            flags: AUTOCLEAR,
            file_name: [0; 64],
            crypt_name: [0; 64],
            encrypt_key: [0; 32],
            init: [0; 2],
        },
        reserved: [0; 8],
    };
    // SAFETY: `config` has the layout of `struct loop_config` and outlives the call, which only reads it.
    unsafe { loop_configure(device.as_raw_fd(), &raw const config) }.map(drop)
}

/// Detaches the backing file, now or after the last user has closed the device (`LOOP_CLR_FD`).
pub(crate) fn clear_loop(device: &File) -> nix::Result<()> {
    // SAFETY: the ioctl takes no argument and touches no memory of ours.
    unsafe { loop_clr_fd(device.as_raw_fd()) }.map(drop)
}

/// Returns the version of KVM's API (`KVM_GET_API_VERSION`).
pub(crate) fn kvm_api_version(kvm: &File) -> nix::Result<i32> {
    // SAFETY: the ioctl takes no argument and touches no memory of ours.
    unsafe { get_api_version(kvm.as_raw_fd(), 0) }
}

/// Makes an empty virtual machine of the default type (`KVM_CREATE_VM`).
pub(crate) fn kvm_create_vm(kvm: &File) -> nix::Result<OwnedFd> {
    // SAFETY: the argument is the machine type, a number; no memory of ours is touched.
    let fd = unsafe { create_vm(kvm.as_raw_fd(), 0) }?;
    // SAFETY: the kernel returned this new descriptor to us alone, so nothing else owns the descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes the persistent tap device `name` for the user `owner` in the calling thread's network namespace
/// (`TUNSETIFF`, `TUNSETOWNER`, `TUNSETPERSIST`).
pub(crate) fn make_tap(tun: &File, name: &str, owner: u32) -> nix::Result<()> {
    let mut request = TapRequest { name: [0; 16], flags: TAP, rest: [0; 22] };
    // The last byte stays 0, to terminate the name.
    for (to, from) in request.name[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    let owner = i32::try_from(owner).map_err(|_| Errno::EINVAL)?;
    // SAFETY: `request` has the layout of `struct ifreq` and outlives the call, which only reads it.
    unsafe { tun_set_iff(tun.as_raw_fd(), &raw const request) }?;
    // SAFETY: the argument is a uid, a number; no memory of ours is touched.
    unsafe { tun_set_owner(tun.as_raw_fd(), owner) }?;
    // SAFETY: the argument is a number; no memory of ours is touched.
    unsafe { tun_set_persist(tun.as_raw_fd(), 1) }.map(drop)
}

/// Sets SIGCHLD to the default or to be ignored, with `flags` (`sigaction(2)`).
pub(crate) fn set_children(ignored: bool, flags: SaFlags) -> nix::Result<()> {
    let handler = if ignored { SigHandler::SigIgn } else { SigHandler::SigDfl };
    let action = SigAction::new(handler, flags, SigSet::empty());
    // SAFETY: no handler is set.
    unsafe { sigaction(Signal::SIGCHLD, &action) }.map(drop)
}

extern "C" fn count(_: i32) {
    ALARMS.fetch_add(1, Ordering::Relaxed);
}

/// The number of handled alarms.
pub(crate) static ALARMS: AtomicU64 = AtomicU64::new(0);

/// Starts a timer that sends SIGALRM to this process every `every_us` microseconds, and counts the signals
/// (`setitimer(2)`).
pub(crate) fn start_alarms(every_us: i64) -> nix::Result<()> {
    let action = SigAction::new(SigHandler::Handler(count), SaFlags::empty(), SigSet::empty());
    // SAFETY: the handler does nothing but to count in an atomic.
    unsafe { sigaction(Signal::SIGALRM, &action) }?;
    let every = libc::timeval { tv_sec: 0, tv_usec: every_us };
    let timer = libc::itimerval { it_interval: every, it_value: every };
    // SAFETY: `timer` is valid for reads during the call; a null pointer for the old value is allowed.
    Errno::result(unsafe {
        libc::setitimer(libc::ITIMER_REAL, &raw const timer, std::ptr::null_mut())
    })
    .map(drop)
}

/// Makes one system call fail with `errno` in this thread and in all later children of the thread (`seccomp(2)`).
pub(crate) fn refuse_call(number: u32, errno: Errno) -> nix::Result<()> {
    let step = |code: u16, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let refuse = libc::SECCOMP_RET_ERRNO | (errno as i32).unsigned_abs();
    // The call's number is the first word of `struct seccomp_data`.
    let mut program = [
        step(0x20, 0, 0, 0),
        step(0x15, 0, 1, number),
        step(0x06, 0, 0, refuse),
        step(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let filter = libc::sock_fprog { len: 4, filter: program.as_mut_ptr() };
    // SAFETY: `filter` points to a program of `len` steps that outlives the call; the kernel copies the program.
    Errno::result(unsafe {
        libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const filter)
    })
    .map(drop)
}

/// Runs `body` in a forked child of this process, without an exec; returns true if `body` returned.
///
/// # Panics
/// If there is no child.
#[must_use]
pub fn in_fork(body: impl FnOnce()) -> bool {
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};
    // SAFETY: the child has only this thread. glibc's own fork handlers leave its heap usable, and `body` takes no lock that
    // another thread of this process can hold.
    match unsafe { fork() }.expect("fork") {
        ForkResult::Child => {
            let returned = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).is_ok();
            // SAFETY: it ends this process alone, and runs nothing of the parent's.
            unsafe { libc::_exit(i32::from(!returned)) }
        }
        ForkResult::Parent { child } => {
            matches!(waitpid(child, None), Ok(WaitStatus::Exited(_, 0)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layouts_match_the_kernel() {
        assert_eq!(size_of::<LoopInfo64>(), 232);
        assert_eq!(size_of::<LoopConfig>(), 304);
        assert_eq!(size_of::<TapRequest>(), 40);
    }
}

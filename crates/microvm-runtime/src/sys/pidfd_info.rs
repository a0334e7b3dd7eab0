//! `ioctl(PIDFD_GET_INFO)`: the status of a process that somebody else reaped.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::ioctl::{Opcode, Updater, ioctl, opcode};

/// The first version of `struct pidfd_info` of `linux/pidfd.h`.
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

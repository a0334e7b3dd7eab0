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
/// `ENOTTY` or `EINVAL` on kernels before 6.13; `ESRCH` on kernels before 6.15, for a process that was reaped.
pub(crate) fn reaped_status(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    match exit_info(pidfd) {
        // The process was reaped during the call. From then on the kernel has the status.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => exit_info(pidfd),
        answer => answer,
    }
}

fn exit_info(pidfd: BorrowedFd<'_>) -> io::Result<Option<i32>> {
    let mut info = PidfdInfo { mask: INFO_EXIT, ..PidfdInfo::default() };
    // SAFETY: the number encodes the size of `PidfdInfo`, which is what the kernel reads and writes.
    let update = unsafe { Updater::<GET_INFO, _>::new(&mut info) };
    // SAFETY: the call has no other effect than to fill `info`, which is plain numbers of the kernel's layout.
    unsafe { ioctl(pidfd, update) }?;
    Ok((info.mask & INFO_EXIT != 0).then_some(info.exit_code))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::process::{Child, Command};

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::super::skip::skip;
    use super::*;

    /// Another thread reaps the process between two reads of the kernel's answer.
    #[test]
    fn a_reaping_under_way_is_no_error() {
        let exits = |child: &Child| {
            let pid = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
            pidfd_open(pid, PidfdFlags::empty()).unwrap()
        };
        let mut child = Command::new("/bin/true").spawn().unwrap();
        let pidfd = exits(&child);
        child.wait().unwrap();
        if !reaped_status(pidfd.as_fd()).is_ok_and(|status| status.is_some()) {
            let test = "sys::pidfd_info::tests::a_reaping_under_way_is_no_error";
            return skip(test, "Linux before 6.15 keeps no status of a reaped process");
        }
        for _ in 0..100 {
            let mut child = Command::new("/bin/true").spawn().unwrap();
            let pidfd = exits(&child);
            let reaper = std::thread::spawn(move || child.wait());
            let status = loop {
                if let Some(status) = reaped_status(pidfd.as_fd()).unwrap() {
                    break status;
                }
            };
            assert_eq!(status, 0);
            reaper.join().unwrap().unwrap();
        }
    }
}

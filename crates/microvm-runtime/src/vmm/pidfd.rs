//! Processes by descriptor: opened, signalled and waited for without a race for their number.

use std::collections::HashSet;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::time::Duration;

use super::procfs;
use super::stamp::ProcessStamp;
use super::status::ExitStatus;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, Errno, Wanted};

/// The time to wait for the status of a process that another parent must reap first.
const REAP_TIMEOUT: Duration = Duration::from_secs(2);

/// Interval between two looks at a child that has ended and is still traced.
const REAP_INTERVAL: Duration = Duration::from_millis(5);

/// Opens `pid` (`pidfd_open(2)`); `None` where there is no such process.
pub(crate) fn open(pid: u32) -> Result<Option<OwnedFd>> {
    sys::pidfd::open_process(pid).map_err(|errno| {
        Error::new(ErrorKind::Identity, format!("open process {pid}")).source_of(errno)
    })
}

/// Sends SIGKILL (`pidfd_send_signal(2)`). A process that has ended is fine.
pub(crate) fn kill(pidfd: BorrowedFd<'_>) -> Result<()> {
    sys::pidfd::kill(pidfd)
        .map_err(|errno| Error::new(ErrorKind::Privilege, "kill the VMM").source_of(errno))
}

/// Opens `pid` as a descriptor, and kills the process if `is_it` returns true. Reaps a child. Returns true after a
/// kill.
pub(crate) fn kill_if(
    pid: u32,
    deadline: impl Into<Deadline>,
    is_it: impl FnOnce(u32) -> bool,
) -> Result<bool> {
    let Some(pidfd) = open(pid)? else { return Ok(false) };
    if !is_it(pid) || ended_by(pidfd.as_fd(), Deadline::now())? {
        return Ok(false);
    }
    let is_child = parent(pid) == Some(std::process::id());
    kill(pidfd.as_fd())?;
    if is_child {
        reap(&[pidfd], deadline);
    }
    Ok(true)
}

/// Kills the recorded process if the process is alive, and adds the pid to `killed`.
///
/// A process that leaves its control group is alive for a moment longer, so the pid may be in `killed` already.
pub(crate) fn kill_recorded(
    stamp: &ProcessStamp,
    killed: &mut HashSet<u32>,
    deadline: impl Into<Deadline>,
) -> Result<()> {
    let deadline = deadline.into();
    let Some(pidfd) = open(stamp.pid())? else { return Ok(()) };
    // After the open: the number cannot come to mean another process now.
    if !stamp.still_alive()? {
        if ProcessStamp::of(stamp.pid())?.as_ref() == Some(stamp) {
            // A child that ended after its handle was dropped: nobody else would reap it.
            reap(&[pidfd], Deadline::now());
        }
        return Ok(());
    }
    kill(pidfd.as_fd())?;
    if !ended_by(pidfd.as_fd(), deadline)? {
        return Err(Error::new(ErrorKind::Timeout, "kill the VMM")
            .because(format!("process {} is still there", stamp.pid())));
    }
    reap(&[pidfd], deadline);
    killed.insert(stamp.pid());
    Ok(())
}

/// The pid of a process's parent (`/proc/<pid>/stat`, field 4).
fn parent(pid: u32) -> Option<u32> {
    let stat = procfs::bytes(pid, "stat").ok()?;
    procfs::after_name(&stat)?.nth(1).and_then(procfs::number)
}

/// Opens at most `limit` of the processes that are children of this process. Without a free descriptor, the child only
/// stays a zombie.
pub(crate) fn hold_children(pids: &[u32], limit: usize) -> Vec<OwnedFd> {
    let me = std::process::id();
    let children = pids.iter().filter(|pid| parent(**pid) == Some(me));
    children.take(limit).map_while(|pid| open(*pid).ok()).flatten().collect()
}

/// Reaps the killed children, and waits until the deadline: a process leaves the control group before a wait can reap
/// the process. A holder of the descriptor can still read the status (`PIDFD_GET_INFO`), on kernels that support that.
pub(crate) fn reap<'a>(
    killed: impl IntoIterator<Item = &'a OwnedFd>,
    deadline: impl Into<Deadline>,
) {
    let deadline = deadline.into();
    for pidfd in killed {
        // At worst a zombie is left of it. ECHILD: it was somebody else's.
        let _ = ended_by(pidfd.as_fd(), deadline);
        let _ = sys::pidfd::reap(pidfd.as_fd());
    }
}

/// Waits until the process has ended, or the deadline has passed: `false` then.
pub(crate) fn ended_by(pidfd: BorrowedFd<'_>, deadline: impl Into<Deadline>) -> Result<bool> {
    wait_for(pidfd, Wanted::Readable, deadline.into())
}

/// The status of a process that has ended: of a child, which is so reaped (`waitid(2)` with `P_PIDFD`), or of a
/// stranger.
pub(crate) fn status(pidfd: BorrowedFd<'_>) -> Result<ExitStatus> {
    // No blocking wait: the kernel does not report the exit of a traced process to the parent until the tracer has
    // exited, and the tracer may be a process of the VM.
    let deadline = Deadline::after(REAP_TIMEOUT);
    loop {
        match sys::pidfd::reap(pidfd) {
            Ok(Some(status)) => return Ok(ExitStatus::from_wait(status)),
            Ok(None) if !deadline.has_passed() => std::thread::sleep(REAP_INTERVAL),
            // Traced, or not our child, or reaped by somebody else of this process.
            Ok(None) | Err(Errno::CHILD) => return stranger_status(pidfd),
            Err(errno) => {
                return Err(Error::new(ErrorKind::Identity, "wait for the VMM").source_of(errno));
            }
        }
    }
}

/// The status of a process that has ended and is not our child: of one that its parent has not reaped yet, from
/// `/proc/<pid>/stat`; of one that was reaped, by `ioctl(PIDFD_GET_INFO)`, Linux 6.15.
fn stranger_status(pidfd: BorrowedFd<'_>) -> Result<ExitStatus> {
    let deadline = Deadline::after(REAP_TIMEOUT);
    loop {
        if let Some(status) = unreaped_status(pidfd) {
            return Ok(ExitStatus::from_wait(status));
        }
        match sys::reaped_status(pidfd) {
            Ok(Some(status)) => return Ok(ExitStatus::from_wait(status)),
            Ok(None) if !deadline.has_passed() => {}
            Ok(None) | Err(_) => return Ok(ExitStatus::Unknown),
        }
        // Shortly between exit and reaping: POLLHUP reports that the process was reaped.
        let moment = Deadline::after(Duration::from_millis(10));
        wait_for(pidfd, Wanted::HangUp, deadline.min(moment))?;
    }
}

/// Returns the wait status of a process that has exited and was not reaped. Until the reaping, no other process gets
/// the pid, and the kernel reports the pid through the descriptor.
fn unreaped_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    let number = || {
        let info = procfs::read(&format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd())).ok()?;
        procfs::value(&info, "Pid").and_then(procfs::number::<u32>)
    };
    let pid = number()?;
    let status = exit_code(&procfs::bytes(pid, "stat").ok()?)?;
    // Still the same: it was not reaped, and its number not given to another, in between.
    (number() == Some(pid)).then_some(status)
}

/// The wait status of a zombie: the last field of its `stat` file.
pub(super) fn exit_code(stat: &[u8]) -> Option<i32> {
    let mut fields = procfs::after_name(stat)?;
    if fields.next()? == b"Z" { fields.next_back().and_then(procfs::number) } else { None }
}

fn wait_for(pidfd: BorrowedFd<'_>, wanted: Wanted, deadline: Deadline) -> Result<bool> {
    loop {
        match sys::poll([(&pidfd, wanted)], deadline) {
            Ok([true]) => return Ok(true),
            Ok([false]) if deadline.has_passed() => return Ok(false),
            Ok([false]) => {}
            Err(errno) => {
                return Err(Error::new(ErrorKind::Identity, "wait for the VMM").source_of(errno));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_thread_is_no_process() {
        std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            assert!(open(thread).unwrap().is_none());
        })
        .join()
        .unwrap();
    }

    #[test]
    fn child_status_is_read() {
        for (script, status) in [
            ("exit 0", ExitStatus::Exited(0)),
            ("exit 7", ExitStatus::Exited(7)),
            ("kill -9 $$", ExitStatus::Signaled(9)),
        ] {
            #[expect(clippy::zombie_processes, reason = "reaped by pidfd")]
            let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
            let pidfd = open(child.id()).unwrap().unwrap();
            assert!(ended_by(pidfd.as_fd(), Deadline::NEVER).unwrap());
            assert_eq!(super::status(pidfd.as_fd()).unwrap(), status, "{script}");
            assert!(kill(pidfd.as_fd()).is_ok(), "killing what has ended is fine");
        }
    }

    #[test]
    fn a_slow_exit_counts_once() {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "read line"]).stdin(std::process::Stdio::piped());
        let deadline = Deadline::after(Duration::from_secs(60));
        #[expect(clippy::zombie_processes, reason = "reaped by the kill")]
        let mut kill = |killed: &mut HashSet<u32>, is_counted: bool| {
            let child = command.spawn().unwrap();
            let stamp = ProcessStamp::of(child.id()).unwrap().unwrap();
            // The kill of its control group has counted it, and it has not exited yet.
            killed.extend(is_counted.then_some(child.id()));
            kill_recorded(&stamp, killed, deadline).unwrap();
            kill_recorded(&stamp, killed, deadline).unwrap();
        };
        let mut killed = HashSet::new();
        kill(&mut killed, true);
        assert_eq!(killed.len(), 1);
        kill(&mut killed, false);
        assert_eq!(killed.len(), 2);
    }

    #[test]
    fn running_process_has_not_ended() {
        let mut child = Command::new("/bin/sh")
            .args(["-c", "read line"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = open(child.id()).unwrap().unwrap();
        assert!(!ended_by(pidfd.as_fd(), Deadline::now()).unwrap());
        drop(child.stdin.take());
        assert!(child.wait().unwrap().code().is_some());
        assert!(open(child.id()).unwrap().is_none());
    }

    #[test]
    fn reaped_strangers_never_succeed() {
        let mut child = Command::new("/bin/sh").args(["-c", "exit 3"]).spawn().unwrap();
        let pidfd = open(child.id()).unwrap().unwrap();
        child.wait().unwrap();
        let status = stranger_status(pidfd.as_fd()).unwrap();
        assert!(matches!(status, ExitStatus::Exited(3) | ExitStatus::Unknown), "never 0: {status}");
    }
}

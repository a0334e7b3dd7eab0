//! Waiting for what the kernel tells: events of a group, ends of processes.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::dir::{Dir, read_all};
use crate::leaf::{self, Leaf};
use crate::{Error, ErrorKind, Result, Version, keyed};

/// How many processes are waited for at once: descriptors are finite.
pub(crate) const AT_ONCE: usize = 64;
/// How long v1's members are waited for before they are listed again: one who is moved elsewhere may never end.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl Leaf {
    /// Waits until no process is in the leaf or below it, or `timeout` has passed.
    ///
    /// Driven by events: v2 tells by `cgroup.events` (poll(2)), on v1 the members' pidfds do (pidfd_open(2)); that one was
    /// moved elsewhere v1 tells nobody, which is noticed within a second. A leaf that was removed is empty.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), naming the processes that are left.
    pub fn wait_empty(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let empty = match self.version() {
            Version::V1 => self.wait_members(deadline)?,
            Version::V2 => {
                let mut empty = true;
                for group in &self.groups {
                    empty &= wait_event(&group.dir, "populated", 0, deadline)?;
                }
                empty
            }
        };
        if empty {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Timeout, "wait until the leaf is empty")
            .path(self.paths().next().unwrap_or_default())
            .because(format!("after {timeout:?} processes {:?} live in it", self.members()?)))
    }

    /// v1 has no event for an empty group, but every process has an end.
    fn wait_members(&self, deadline: Instant) -> Result<bool> {
        loop {
            let members = match self.members() {
                Ok(members) => members,
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(true),
                Err(error) => return Err(error),
            };
            if members.is_empty() {
                return Ok(true);
            }
            let begun = Instant::now();
            if begun >= deadline {
                return Ok(false);
            }
            let until = deadline.min(begun + SECOND_LOOK);
            wait_for_ends(members.get(..AT_ONCE).unwrap_or(&members), until)?;
            if begun.elapsed() < Duration::from_millis(1) {
                // They had ended before, and the kernel is about to take them out.
                pause();
            }
        }
    }
}

/// Waits until these processes, which may be gone already, have ended, or until `deadline`.
fn wait_for_ends(pids: &[u32], deadline: Instant) -> Result<()> {
    for pid in pids {
        if let Some(pidfd) = pidfd(*pid)?
            && !readable(&pidfd, PollFlags::IN, deadline)?
        {
            break;
        }
    }
    Ok(())
}

/// The process `pid`, held; `None` where there is none.
pub(crate) fn pidfd(pid: u32) -> Result<Option<OwnedFd>> {
    let Some(number) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { return Ok(None) };
    match pidfd_open(number, PidfdFlags::empty()) {
        Ok(pidfd) => Ok(Some(pidfd)),
        // A thread's id, on kernels that say so, or a process that was there a moment ago.
        Err(Errno::SRCH | Errno::INVAL | Errno::NOENT) => Ok(None),
        Err(errno) => Err(Error::call("open a pidfd of", format!("process {pid}"), errno)),
    }
}

/// Waits until `key` of the group's `cgroup.events` is `wanted`; whether it is before `deadline`. A group that is gone is
/// as wanted.
pub(crate) fn wait_event(dir: &Dir, key: &str, wanted: u64, deadline: Instant) -> Result<bool> {
    const FILE: &str = "cgroup.events";
    let file = match dir.open_file(FILE) {
        Ok(file) => file,
        Err(error) if leaf::is_gone(&error) => return Ok(true),
        Err(error) => return Err(error),
    };
    loop {
        // Read first: the next event is one after this state.
        let text = match read_all(file.as_fd()) {
            Ok(text) => text,
            Err(Errno::NODEV) => return Ok(true),
            Err(errno) => return Err(dir.failed("read", FILE, errno)),
        };
        if keyed::number(&String::from_utf8_lossy(&text), key) == Some(wanted) {
            return Ok(true);
        }
        if !readable(&file, PollFlags::PRI, deadline)? {
            return Ok(false);
        }
    }
}

/// Waits for an event on `fd` (poll(2)); whether there is one before `deadline`.
fn readable(fd: &OwnedFd, event: PollFlags, deadline: Instant) -> Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec::try_from(left).ok();
        match poll(&mut [PollFd::new(fd, event)], timeout.as_ref()) {
            Ok(0) => return Ok(false),
            Ok(_) => return Ok(true),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::call("wait for", "a group's events", errno)),
        }
    }
}

/// Gives the kernel the moment it takes to finish what it has no event for.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_no_process() {
        std::thread::spawn(|| {
            let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
            assert!(pidfd(thread).unwrap().is_none());
        })
        .join()
        .unwrap();
        assert!(pidfd(std::process::id()).unwrap().is_some());
        assert!(pidfd(0).unwrap().is_none());
        assert!(pidfd(u32::MAX).unwrap().is_none());
    }
}

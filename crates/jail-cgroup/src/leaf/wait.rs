//! Waiting for the kernel: events of a group, exits of processes.

use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::dir::{Dir, FILE_MAX};
use crate::leaf::Leaf;
use crate::leaf::keyed;
use crate::leaf::members::{self, HIDDEN, PROCS};
use crate::sys::{self, Access, Event};
use crate::{CgroupVersion, Error, ErrorKind, Result};

/// Longest wait for one process of a v1 leaf: v1 sends no event when a process is moved to another group.
const SECOND_LOOK: Duration = Duration::from_secs(1);

impl Leaf {
    /// Waits until no process is in the leaf or below. A `timeout` that no clock can represent means for ever.
    ///
    /// v2: poll(2) on `cgroup.events`. v1: waits for one member after the other by pidfd (pidfd_open(2)), and notices
    /// within a second that a member was moved to another group. A leaf that was removed is empty.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout), with some of the processes and their number.
    pub fn wait_empty(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now().checked_add(timeout);
        for group in &self.groups {
            let empty = match self.version() {
                CgroupVersion::V1 => wait_members(&group.dir, deadline)?,
                CgroupVersion::V2 => event(&group.dir, "populated", 0, deadline)?,
            };
            if !empty {
                return Err(Error::new(ErrorKind::Timeout, "wait until the leaf is empty")
                    .at(group.dir.path())
                    .because(format!("after {timeout:?} {} are in it", self.sample()?)));
            }
        }
        Ok(())
    }
}

/// v1: waits for the exit of one member after the other.
fn wait_members(group: &Dir, deadline: Option<Instant>) -> Result<bool> {
    loop {
        let Some(member) = members::for_each(group, PROCS, ControlFlow::Break)? else {
            return Ok(true);
        };
        let begun = Instant::now();
        if deadline.is_some_and(|deadline| begun >= deadline) {
            return Ok(false);
        }
        if member == HIDDEN {
            pause();
            continue;
        }
        let failed = |errno| Error::call("wait for", format!("process {member}"), errno);
        if let Some(pidfd) = sys::pidfd(member).map_err(failed)? {
            let until = begun.checked_add(SECOND_LOOK);
            let until = deadline.map_or(until, |deadline| until.map(|until| until.min(deadline)));
            sys::wait_for(&pidfd, Event::Exit, until).map_err(failed)?;
        }
        if begun.elapsed() < Duration::from_millis(1) {
            // The process had exited before, and the kernel is about to take it out of the group.
            pause();
        }
    }
}

/// Waits until `key` of the group's `cgroup.events` is `wanted`. Returns false at the deadline, true if the group was
/// removed.
pub(crate) fn event(dir: &Dir, key: &str, wanted: u64, deadline: Option<Instant>) -> Result<bool> {
    const FILE: &str = "cgroup.events";
    let file = match dir.open_file(FILE, Access::Read) {
        Ok(file) => file,
        Err(error) if error.is_gone() => return Ok(true),
        Err(error) => return Err(error),
    };
    loop {
        // Read first: the next event comes after this state.
        match dir.read_held(&file, FILE, FILE_MAX) {
            Ok(text) if keyed::number(&text, key) == Some(wanted) => return Ok(true),
            Ok(_) => {}
            Err(error) if error.is_gone() => return Ok(true),
            Err(error) => return Err(error),
        }
        let changed = sys::wait_for(file.as_fd(), Event::Change, deadline);
        if !changed.map_err(|errno| dir.failed("wait for", FILE, errno))? {
            return Ok(false);
        }
    }
}

/// Looks every millisecond until `done` or the deadline, for states without an event.
pub(crate) fn until(
    deadline: Option<Instant>,
    mut done: impl FnMut() -> Result<bool>,
) -> Result<bool> {
    loop {
        if done()? {
            return Ok(true);
        }
        if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Ok(false);
        }
        pause();
    }
}

/// Gives the kernel a moment to finish a change without an event.
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(1));
}

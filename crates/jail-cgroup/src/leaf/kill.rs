//! Killing every process of a leaf.

use std::ops::ControlFlow;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

use crate::dir::Dir;
use crate::host::membership;
use crate::leaf::members::{self, HIDDEN, PROCS};
use crate::leaf::{Group, Leaf, wait};
use crate::sys::{self, Errno};
use crate::{CgroupVersion, Controller, Error, ErrorKind, Result};

/// Most passes over the members of a leaf that nothing keeps from forking.
const PASSES: usize = 64;
/// Longest wait for the v1 freezer. A process that the kernel cannot stop sleeps in the kernel, and does not fork.
const FREEZE_TIMEOUT: Duration = Duration::from_millis(500);

/// Result of one pass over the members.
#[derive(Debug, Default)]
struct Pass {
    signalled: u64,
    failed: u64,
    first_failure: Option<Error>,
}

impl Leaf {
    /// Sends SIGKILL to every process in the leaf and below; no process escapes by forking.
    ///
    /// v2: one write to `cgroup.kill` (Linux 5.14), which passes over processes whose first thread has ended: they are
    /// signalled by pidfd. Otherwise: freezes the leaf, signals each process by pidfd, thaws, and looks again. v1
    /// without a freezer forbids new tasks (`pids.max`) meanwhile. Needs at most four descriptors and no memory per
    /// process. A process that cannot be signalled does not keep the others from the signal.
    ///
    /// Returns when all are signalled; [`wait_empty`](Self::wait_empty) waits until they have exited. An empty leaf and
    /// a leaf that was removed are fine.
    ///
    /// # Errors
    /// - [`InvalidInput`](ErrorKind::InvalidInput) if the caller itself is in the leaf; nothing is signalled.
    /// - [`Foreign`](ErrorKind::Foreign) if the leaf is not its owner's; nothing is signalled.
    /// - [`Frozen`](ErrorKind::Frozen) on v1 if a group above the leaf is frozen: the processes exit after that group is
    ///   thawed.
    /// - [`Busy`](ErrorKind::Busy) if new processes appear faster than signals.
    pub fn kill(&self) -> Result<()> {
        const OPERATION: &str = "kill the leaf";
        let groups = self.owned_groups(OPERATION)?;
        for group in &groups {
            if is_member(group, self.version(), std::process::id())? {
                return Err(Error::new(ErrorKind::InvalidInput, OPERATION)
                    .at(group.dir.path())
                    .because("the calling process is in it")
                    .hinted("Move the calling process to another group first."));
            }
        }
        let mut by_signal = false;
        for group in &groups {
            by_signal |= !kill_at_once(group, self.version())?;
        }
        if !by_signal {
            return self.kill_leaderless(&groups);
        }
        self.kill_by_signal(&groups)?;
        match (self.version(), self.frozen_above()?) {
            (CgroupVersion::V1, Some(ancestor)) if !self.is_empty()? => {
                Err(Error::new(ErrorKind::Frozen, OPERATION)
                    .at(ancestor)
                    .because("the group is frozen: the processes have their signal and cannot exit")
                    .hinted("Thaw the group: write THAWED to its freezer.state."))
            }
            _ => Ok(()),
        }
    }

    /// Signals the processes that `cgroup.kill` passes over: the kernel sends that signal to the first thread of each
    /// process, and a first thread that has ended hands none on.
    fn kill_leaderless(&self, groups: &[&Group]) -> Result<()> {
        for _ in 0..PASSES {
            let mut found = false;
            for group in groups {
                let mut failure = None;
                members::for_each(&group.dir, PROCS, |pid| {
                    if leader_has_ended(pid) {
                        found = true;
                        failure = signal(group, self.version(), pid).err().or(failure.take());
                    }
                    ControlFlow::<()>::Continue(())
                })?;
                if let Some(error) = failure {
                    return Err(error);
                }
            }
            if !found {
                break;
            }
            // The forks that such a process made before its signal have first threads.
            for group in groups {
                kill_at_once(group, self.version())?;
            }
            wait::pause();
        }
        Ok(())
    }

    fn kill_by_signal(&self, groups: &[&Group]) -> Result<()> {
        let mut last = u64::MAX;
        for _ in 0..PASSES {
            let hold = Hold::take(self)?;
            let proven = hold.stops_forks()?;
            let mut pass = self.signal_all(groups)?;
            drop(hold);
            if pass.signalled > 0 {
                // A fork that was under way shows now; no other can have begun.
                wait::pause();
                pass = self.signal_all(groups)?;
            }
            if let Some(error) = pass.first_failure {
                return Err(error.because(format!("{} processes were not signalled", pass.failed)));
            }
            if pass.signalled == 0 || proven {
                return Ok(());
            }
            last = pass.signalled;
            wait::pause();
        }
        Err(Error::new(ErrorKind::Busy, "kill the leaf")
            .at(self.paths().next().unwrap_or_default())
            .because(format!("{last} processes are left after {PASSES} passes"))
            .hinted("Mount the freezer or the pids hierarchy."))
    }

    /// Signals each member once.
    fn signal_all(&self, groups: &[&Group]) -> Result<Pass> {
        let mut pass = Pass::default();
        for group in groups {
            members::for_each(&group.dir, PROCS, |pid| {
                match signal(group, self.version(), pid) {
                    Ok(true) => pass.signalled += 1,
                    Ok(false) => {}
                    Err(error) => {
                        pass.failed += 1;
                        pass.first_failure.get_or_insert(error);
                    }
                }
                ControlFlow::<()>::Continue(())
            })?;
        }
        Ok(pass)
    }
}

/// Writes `cgroup.kill`. Returns false if the group has no such file.
fn kill_at_once(group: &Group, version: CgroupVersion) -> Result<bool> {
    if version == CgroupVersion::V1 {
        return Ok(false);
    }
    match group.dir.write("cgroup.kill", "1") {
        Ok(()) => Ok(true),
        Err(error) if error.errno() == Some(Errno::NODEV) => Ok(true),
        // A removed group has no file either; passing over its members finds none.
        Err(error) if error.errno() == Some(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Returns true if the first thread of a process has ended (`/proc/<pid>/stat`, field 3), other threads or not.
fn leader_has_ended(pid: u32) -> bool {
    let stat = Dir::open_system(format!("/proc/{pid}")).and_then(|proc| proc.read("stat"));
    stat.is_ok_and(|stat| {
        // The name before it may contain anything.
        let name = stat.iter().rposition(|byte| *byte == b')');
        name.and_then(|end| stat.get(end + 2)).is_some_and(|state| *state == b'Z')
    })
}

/// Signals the process `pid` of the group. Returns false if it is none.
fn signal(group: &Group, version: CgroupVersion, pid: u32) -> Result<bool> {
    if pid == HIDDEN {
        return Err(Error::new(ErrorKind::Privilege, "kill a process")
            .at(group.dir.path())
            .because("the process is in a pid namespace that the caller cannot see into")
            .hinted(
                "Call from the pid namespace in which the process was started, or from one above.",
            ));
    }
    let failed = |errno| Error::call("kill", format!("process {pid}"), errno);
    let Some(pidfd) = sys::pidfd(pid).map_err(failed)? else { return Ok(false) };
    // The pid may have passed to another process before the pidfd was open.
    if !is_member(group, version, pid)? {
        return Ok(false);
    }
    sys::signal_kill(pidfd.as_fd()).map_err(failed)?;
    Ok(true)
}

/// Returns true if the process is in the group or below it, by `/proc/<pid>/cgroup`, or by the group's list if that
/// cannot be read.
fn is_member(group: &Group, version: CgroupVersion, pid: u32) -> Result<bool> {
    let proc = Dir::open_system(format!("/proc/{pid}"));
    let text = match proc.and_then(|proc| proc.read("cgroup")) {
        Ok(text) => text,
        Err(_) => return listed(group, pid),
    };
    match membership::path_of(&text, version, group.path.controllers()) {
        // The shown path may belong to another view of the hierarchy: the list decides on a difference.
        Some(path) if path.starts_with(&group.full_path) => Ok(true),
        _ => listed(group, pid),
    }
}

fn listed(group: &Group, pid: u32) -> Result<bool> {
    members::lists(&group.dir, PROCS, pid)
}

/// Keeps the leaf from forking until dropped.
struct Hold<'a> {
    leaf: &'a Leaf,
    /// Controller, file, and the value that releases.
    release: Option<(Controller, &'static str, Vec<u8>)>,
}

impl<'a> Hold<'a> {
    fn take(leaf: &'a Leaf) -> Result<Self> {
        let mut hold = Self { leaf, release: None };
        let ways = [
            (Controller::Freezer, "cgroup.freeze", "1"),
            (Controller::Freezer, "freezer.state", "FROZEN"),
            (Controller::Pids, "pids.max", "0"),
        ];
        for (controller, file, value) in ways {
            let Some(dir) = leaf.dir_of(controller) else { continue };
            let Some(before) = dir.read_if_exists(file)? else { continue };
            let release = match file {
                "freezer.state" => b"THAWED".to_vec(),
                _ => before.trim_ascii().to_vec(),
            };
            match dir.write(file, value) {
                Ok(()) => hold.release = Some((controller, file, release)),
                Err(error) if error.is_gone() => {}
                Err(error) => return Err(error),
            }
            break;
        }
        Ok(hold)
    }

    /// Returns true if no process of the leaf can fork any more.
    fn stops_forks(&self) -> Result<bool> {
        let Some((controller, file, _)) = &self.release else { return Ok(false) };
        let Some(dir) = self.leaf.dir_of(*controller) else { return Ok(false) };
        let deadline = Instant::now().checked_add(FREEZE_TIMEOUT);
        match *file {
            "freezer.state" => wait::until(deadline, || Ok(dir.read(file)?.starts_with(b"FROZEN"))),
            "cgroup.freeze" => wait::event(dir, "frozen", 1, deadline),
            _ => Ok(true),
        }
        .map(|_| true)
        .or_else(|error| if error.is_gone() { Ok(true) } else { Err(error) })
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let Some((controller, file, value)) = &self.release else { return };
        if let Some(dir) = self.leaf.dir_of(*controller) {
            // A removed group needs no release.
            let _ = dir.write(file, value);
        }
    }
}

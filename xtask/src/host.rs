//! What the tests could leave on the host, looked up before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use testkit::{PREFIX, mounts};

/// Mounts, loop devices, control groups and scratch directories.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Host {
    things: BTreeSet<String>,
}

impl Host {
    pub(crate) fn look() -> Self {
        let mut things = BTreeSet::new();
        things.extend(
            mounts::all().iter().map(|mount| format!("mount at {}", mount.point.display())),
        );
        for hierarchy in testkit::hierarchies() {
            control_groups(&hierarchy, &mut things);
        }
        for device in entries("/sys/block") {
            if let Ok(file) = fs::read_to_string(device.join("loop/backing_file")) {
                things.insert(format!("loop device {} of {}", device.display(), file.trim()));
            }
        }
        things
            .extend(testkit::scratch_dirs().iter().map(|dir| format!("scratch {}", dir.display())));
        Self { things }
    }

    /// What is there now and was not before, but for what carries the pid of a test process that is not among `pids`:
    /// another run's, on the same host.
    pub(crate) fn new_since(&self, before: &Self, pids: &BTreeSet<u32>) -> Vec<String> {
        self.things
            .difference(&before.things)
            .filter(|thing| !is_anothers(thing, pids))
            .cloned()
            .collect()
    }
}

/// Whether the name says that another process than these made it: `<prefix><label>-<pid>-<n>` (`testkit::unique`).
fn is_anothers(thing: &str, pids: &BTreeSet<u32>) -> bool {
    let Some((_, name)) = thing.split_once(PREFIX) else { return false };
    let name = name.split('/').next().unwrap_or(name);
    // The label may have dashes too.
    let pid = name.rsplit('-').nth(1).and_then(|pid| pid.parse().ok());
    pid.is_some_and(|pid| !pids.contains(&pid))
}

fn control_groups(dir: &Path, things: &mut BTreeSet<String>) {
    for child in entries(dir).into_iter().filter(|path| path.is_dir()) {
        control_groups(&child, things);
        things.insert(format!("control group {}", child.display()));
    }
}

/// What is in a directory; nothing where it is not there, or is gone meanwhile.
fn entries(dir: impl AsRef<Path>) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

/// Has orphaned processes of our children become our own children, so that none is lost sight of
/// (`PR_SET_CHILD_SUBREAPER`).
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("become the reaper of orphans")
}

/// Ends every process that our children left behind, and names them.
///
/// Only to be called while none of our own children is running.
pub(crate) fn end_orphans() -> Result<Vec<String>> {
    let mut ended = Vec::new();
    loop {
        // Those that have ended by themselves left nothing but their status.
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => continue,
            Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Err(errno) => return Err(errno).context("look for orphans"),
        }
        for pid in children()? {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ended.push(format!("process {pid} ({})", name.trim()));
            // It is our child and not yet waited for: the pid is still its own.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
                .context("end an orphan")?;
            waitpid(pid, None).context("wait for an orphan")?;
        }
    }
}

/// The processes whose parent we are.
fn children() -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for task in entries("/proc/self/task") {
        let list = fs::read_to_string(task.join("children")).context("list our children")?;
        pids.extend(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    Ok(pids)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_runs_things_are_told_by_their_pid() {
        let ours = BTreeSet::from([17]);
        assert!(!is_anothers("mount at /tmp/microvm-test-ext4-17-0/mnt", &ours));
        assert!(is_anothers("mount at /tmp/microvm-test-a-b-18-0/mnt", &ours));
        assert!(!is_anothers("mount at /mnt", &ours));
        assert!(!is_anothers("control group /sys/fs/cgroup/microvm-test-x", &ours));
    }

    #[test]
    fn what_is_new_is_seen() {
        let before = Host::look();
        let scratch = testkit::Scratch::new("host");
        let new = Host::look().new_since(&before, &BTreeSet::from([std::process::id()]));
        let expected = format!("scratch {}", scratch.path().display());
        assert!(new.contains(&expected), "{new:?}");
    }
}

//! Finds, empties and removes the control groups of a test, in all hierarchies.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::mounts;
use crate::scratch::PREFIX;

/// Lists the directories `<hierarchy>/<parent>/<leaf>` of all mounted hierarchies. An empty leaf means the parent.
#[must_use]
pub fn cgroups_named(parent: &str, leaf: &str) -> Vec<PathBuf> {
    hierarchies()
        .into_iter()
        .map(|top| top.join(parent).join(leaf))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Lists the mount points of all v1 and v2 hierarchies, without duplicates.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let mut tops: Vec<_> = mounts::all()
        .into_iter()
        .filter(|mount| matches!(mount.fstype.as_str(), "cgroup" | "cgroup2"))
        .map(|mount| mount.point)
        .collect();
    tops.sort();
    tops.dedup();
    tops
}

/// Kills all processes in the control group `name` of each hierarchy, and removes the group with all groups below.
///
/// A missing group is not an error. The removal is best effort, because drops call this function: a group that stays is
/// printed. Only names of [`unique`](crate::unique) are accepted, so that a mistake never empties a slice of the host.
pub fn remove_cgroup(name: &str) {
    if !name.starts_with(PREFIX) {
        eprintln!("not removed: control group {name:?} does not belong to a test");
        return;
    }
    for dir in cgroups_named(name, "") {
        if let Err(err) = empty_and_remove(&dir) {
            eprintln!("left behind: control group {}: {err}", dir.display());
        }
    }
}

fn empty_and_remove(top: &Path) -> std::io::Result<()> {
    let mut last = Ok(());
    // A killed process stays in the group until reaped, perhaps by another process.
    for _ in 0..500 {
        let dirs = tree(top);
        for dir in &dirs {
            kill_members(dir);
        }
        last = dirs.iter().rev().try_for_each(fs::remove_dir);
        if !top.exists() {
            return Ok(());
        }
        sleep(Duration::from_millis(10));
    }
    last
}

/// Returns `top` and all directories below, parents first.
pub(crate) fn tree(top: &Path) -> Vec<PathBuf> {
    let mut dirs = vec![top.to_owned()];
    let mut next = 0;
    while let Some(dir) = dirs.get(next) {
        let children: Vec<_> = fs::read_dir(dir)
            .into_iter()
            .flatten()
            .flatten()
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.path())
            .collect();
        dirs.extend(children);
        next += 1;
    }
    dirs
}

fn kill_members(dir: &Path) {
    // A frozen process does not exit on SIGKILL: thaw first, on v1 and v2.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    for pid in members(dir) {
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // Another process may have got the pid before pidfd_open: check the membership again.
        if members(dir).contains(&pid) {
            let _ = pidfd_send_signal(pidfd, Signal::KILL);
        }
    }
}

fn members(dir: &Path) -> Vec<Pid> {
    fs::read_to_string(dir.join("cgroup.procs"))
        .unwrap_or_default()
        .lines()
        .filter_map(|line| Pid::from_raw(line.parse().ok()?))
        .collect()
}

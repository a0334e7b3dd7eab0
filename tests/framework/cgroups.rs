//! The control groups a test made, in whichever hierarchy: found by name, emptied, removed.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use crate::mounts;
use crate::scratch::PREFIX;

/// Every directory `<hierarchy>/<parent>/<leaf>` there is, over all mounted hierarchies; an empty leaf means the parent.
#[must_use]
pub fn cgroups_named(parent: &str, leaf: &str) -> Vec<PathBuf> {
    hierarchies()
        .into_iter()
        .map(|top| top.join(parent).join(leaf))
        .filter(|dir| dir.is_dir())
        .collect()
}

/// Where the hierarchies are mounted, v1 and v2, each once.
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

/// Kills what lives in the control group `name`, relative to each hierarchy's mount, and removes it with all below it.
///
/// Fine when there is none. Best effort, as it runs in drops: what stays is printed. Only a name made by
/// [`unique`](crate::unique) is accepted, so that a slip never empties somebody's slice.
pub fn remove_cgroup(name: &str) {
    if !name.starts_with(PREFIX) {
        eprintln!("left alone: control group {name:?} is no test's");
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
    // A killed process leaves its group when it is reaped, which may be somebody else's to do.
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

/// `top` and all directories below it, parents first.
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
    // The frozen do not die: thaw, on v1 and on v2.
    let _ = fs::write(dir.join("freezer.state"), "THAWED");
    let _ = fs::write(dir.join("cgroup.freeze"), "0");
    for pid in members(dir) {
        let Ok(pidfd) = pidfd_open(pid, PidfdFlags::empty()) else {
            continue;
        };
        // The pid may have found a new owner between the two: then it is no member any more.
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

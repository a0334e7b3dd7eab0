//! What tests leave on a host, looked up rather than assumed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, process};

use crate::{cgroups, mounts, scratch};

/// What there is on the host by the names this thread, that is this test, made with [`unique`](crate::unique) (which
/// [`Scratch`](crate::Scratch) and all else here are named by), now and later.
///
/// Names are how tests that run at once stay apart. A thread the test starts counts for itself.
#[derive(Debug)]
pub struct HostState {
    before: BTreeSet<String>,
}

impl HostState {
    /// Looks at mounts, loop devices, control groups and processes; the test's scratch directories do not count.
    #[must_use]
    pub fn snapshot() -> Self {
        Self { before: left_by_this_test() }
    }

    /// # Panics
    /// When there is something that was not there at the snapshot, with the list.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let new: Vec<_> = left_by_this_test().difference(&self.before).cloned().collect();
        assert!(new.is_empty(), "left on the host:\n  {}", new.join("\n  "));
    }
}

/// All that carries one of this test's names (or begins with it): mounts, loop devices by their backing file, control
/// groups, processes by command line, group or root. One look at the host, however many the names.
fn left_by_this_test() -> BTreeSet<String> {
    let names = scratch::names_of_this_thread();
    let is_named = |text: &str| names.iter().any(|name| text.contains(name));
    let named = |path: &Path| is_named(&path.to_string_lossy());
    let mounts = mounts::all()
        .into_iter()
        .filter(|mount| named(&mount.point))
        .map(|mount| format!("mount of {} at {}", mount.fstype, mount.point.display()));
    let loops = loops()
        .into_iter()
        .filter(|(_, file)| is_named(file))
        .map(|(device, file)| format!("loop device {device} on {}", file.trim_end()));
    let cgroups = cgroups::hierarchies()
        .into_iter()
        .flat_map(|top| cgroups::tree(&top))
        .filter(|dir| named(dir))
        .map(|dir| format!("control group {}", dir.display()));
    let processes = processes()
        .into_iter()
        .filter(|pid| carries(*pid, is_named) && !is_inits(*pid))
        .map(describe);
    mounts.chain(loops).chain(cgroups).chain(processes).collect()
}

/// The scratch directories there are, of this and of earlier runs.
#[must_use]
pub fn scratch_dirs() -> Vec<PathBuf> {
    fs::read_dir(scratch::place())
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(scratch::PREFIX))
        .map(|entry| entry.path())
        .collect()
}

/// Every loop device in use, with its backing file.
fn loops() -> Vec<(String, String)> {
    fs::read_dir("/sys/block")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let file = fs::read_to_string(entry.path().join("loop/backing_file")).ok()?;
            Some((entry.file_name().to_string_lossy().into_owned(), file))
        })
        .collect()
}

fn processes() -> Vec<u32> {
    fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| *pid != process::id())
        .collect()
}

/// Whether the process has a name in its command line, its control groups or its root.
fn carries(pid: u32, is_named: impl Fn(&str) -> bool) -> bool {
    let text = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // A jailed process shows where its root was taken from; whoever shares our mounts shows all of them.
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let elsewhere = namespace(&pid.to_string()) != namespace("self");
    is_named(&text("cmdline"))
        || is_named(&text("cgroup"))
        || elsewhere
            && text("mountinfo").lines().any(|line| line.split(' ').nth(3).is_some_and(&is_named))
}

/// Whether it has ended and waits for another parent than this process to reap it: init does so when it gets to it.
fn is_inits(pid: u32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let zombie = status.lines().any(|line| line.starts_with("State:\tZ"));
    zombie && !status.lines().any(|line| line == format!("PPid:\t{}", process::id()))
}

fn describe(pid: u32) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    format!("process {pid} {} ({})", field("Name:"), field("State:"))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::{KillOnDrop, Scratch, Tmpfs};

    #[test]
    fn a_process_that_stays_is_seen() {
        let scratch = Scratch::new("state");
        let host = HostState::snapshot();
        host.assert_unchanged();
        let mut command = Command::new("/bin/sh");
        command
            .args(["-c", "read _; exit", scratch.path().to_str().unwrap()])
            .stdin(Stdio::piped());
        let child = KillOnDrop::spawn(&mut command);
        let left = left_by_this_test();
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left.first().unwrap().contains(&child.id().to_string()));
        drop(child);
        host.assert_unchanged();
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn a_mount_and_a_control_group_that_stay_are_seen() {
        let host = HostState::snapshot();
        let scratch = Scratch::new("state");
        let tmpfs = Tmpfs::mount(&scratch.dir("mnt"), "size=1m");
        assert_eq!(left_by_this_test().len(), 1);
        drop(tmpfs);
        host.assert_unchanged();
        let name = crate::unique("state");
        for top in cgroups::hierarchies() {
            fs::create_dir(top.join(&name)).unwrap();
        }
        assert_eq!(left_by_this_test().len(), cgroups::hierarchies().len());
        crate::remove_cgroup(&name);
        host.assert_unchanged();
    }
}

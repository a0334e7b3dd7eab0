//! Searches a host for mounts, loop devices, control groups and processes that tests have left.
//!
//! Other programs change the host during a test. Only things with a mark of the test or of the run count.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, process};

use crate::scratch::RUN_ENV;
use crate::{cgroups, mounts, scratch};

/// The time that a released thing may take to disappear. The kernel detaches a loop device after the last user has
/// closed the device, and a listing of all devices is a user too.
const GRACE: Duration = Duration::from_secs(10);

/// A snapshot of the things on the host that have a name of this thread, and so of this test.
///
/// The names come from [`unique`](crate::unique), which [`Scratch`](crate::Scratch) and the other types here use. Names
/// separate tests that run at once. The names of other threads do not count.
#[derive(Debug)]
pub struct HostState {
    before: BTreeSet<String>,
}

impl HostState {
    /// Records mounts, loop devices, control groups and processes. Scratch directories do not count.
    #[must_use]
    pub fn snapshot() -> Self {
        Self { before: left_by_this_test() }
    }

    /// Compares the host with the snapshot, and waits up to ten seconds for things to disappear.
    ///
    /// # Panics
    /// If something is new since the snapshot. The message lists the new things.
    #[track_caller]
    pub fn assert_unchanged(&self) {
        let new =
            wait_until_empty(|| left_by_this_test().difference(&self.before).cloned().collect());
        assert!(new.is_empty(), "left on the host:\n  {}", new.join("\n  "));
    }
}

/// Returns everything that carries the mark of a run: scratch directories, mounts, loop devices, control groups, and
/// processes by command line, environment, control group or root. The caller and its ancestors do not count.
///
/// Waits up to ten seconds for things to disappear.
#[must_use]
pub fn left_by_run(run: &str) -> Vec<String> {
    let mark = format!("-{run}-");
    wait_until_empty(|| {
        let mut left = left_with(|text| text.contains(&mark), Some(run));
        let entries = fs::read_dir(scratch::place()).into_iter().flatten().flatten();
        left.extend(
            entries
                .map(|entry| entry.path())
                .filter(|path| path.to_string_lossy().contains(&mark))
                .map(|path| format!("scratch directory {}", path.display())),
        );
        left.into_iter().collect()
    })
}

/// Repeats `look` until the result is empty or the grace period is over, and returns the last result.
fn wait_until_empty(look: impl Fn() -> Vec<String>) -> Vec<String> {
    let begun = Instant::now();
    loop {
        let found = look();
        if found.is_empty() || begun.elapsed() > GRACE {
            return found;
        }
        sleep(Duration::from_millis(50));
    }
}

fn left_by_this_test() -> BTreeSet<String> {
    let names = scratch::names_of_this_thread();
    left_with(|text| names.iter().any(|name| text.contains(name)), None)
}

/// Lists the mounts, loop devices, control groups and processes with a name for which `is_named` returns true. With a
/// run, the environment of processes is searched too. The host is searched once for all names.
fn left_with(is_named: impl Fn(&str) -> bool, run: Option<&str>) -> BTreeSet<String> {
    let named = |path: &Path| is_named(&path.to_string_lossy());
    let mounts = mounts::all()
        .into_iter()
        .filter(|mount| named(&mount.point) || named(&mount.root) || is_named(&mount.source))
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
    let ours = ancestors();
    let processes = processes()
        .into_iter()
        .filter(|pid| !ours.contains(pid))
        .filter(|pid| carries(*pid, &is_named) || run.is_some_and(|run| was_started_in(*pid, run)))
        .filter(|pid| !is_inits(*pid))
        .map(describe);
    mounts.chain(loops).chain(cgroups).chain(processes).collect()
}

/// Lists the loop devices in use and the backing files.
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
        .collect()
}

/// Returns this process and all ancestors. A parent shell or sudo(8) may have a name on the command line.
fn ancestors() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = Some(process::id());
    while let Some(pid) = next.filter(|pid| found.insert(*pid)) {
        next = status_field(pid, "PPid:").parse().ok();
    }
    found
}

/// Returns true if the initial environment of the process contains the mark of the run.
fn was_started_in(pid: u32, run: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let setting = format!("{RUN_ENV}={run}");
    environment.split(|byte| *byte == 0).any(|entry| OsStr::from_bytes(entry) == &*setting)
}

/// Returns true if the command line, the control groups or the root of the process contain a name.
fn carries(pid: u32, is_named: impl Fn(&str) -> bool) -> bool {
    let text = |file: &str| {
        let bytes = fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    };
    // In another mount namespace, mountinfo shows the source of a jail's root. In our namespace, mountinfo shows all
    // mounts.
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
    let elsewhere = namespace(&pid.to_string()) != namespace("self");
    is_named(&text("cmdline"))
        || is_named(&text("cgroup"))
        || elsewhere
            && text("mountinfo").lines().any(|line| line.split(' ').nth(3).is_some_and(&is_named))
}

/// Returns true if the process is a zombie that another process, such as init, must reap.
fn is_inits(pid: u32) -> bool {
    status_field(pid, "State:").starts_with('Z')
        && status_field(pid, "PPid:") != process::id().to_string()
}

fn describe(pid: u32) -> String {
    format!("process {pid} {} ({})", status_field(pid, "Name:"), status_field(pid, "State:"))
}

/// Returns a field of `/proc/<pid>/status`; empty if the process does not exist.
fn status_field(pid: u32, name: &str) -> String {
    let status = fs::read(format!("/proc/{pid}/status")).unwrap_or_default();
    let status = String::from_utf8_lossy(&status);
    status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;
    use crate::{KillOnDrop, Scratch, Tmpfs};

    #[test]
    fn leftover_processes_are_detected() {
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
    fn marked_processes_are_detected() {
        let run = crate::new_run();
        let start = |name: &str, value: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", "read _"]).env(name, value).stdin(Stdio::piped());
            KillOnDrop::spawn(&mut command)
        };
        let ours = start(RUN_ENV, &run);
        let _neighbours = start(RUN_ENV, &crate::new_run());
        let _strangers = start("OTHER", &run);
        let left = left_with(|_| false, Some(&run));
        assert_eq!(left.len(), 1, "{left:?}");
        assert!(left.first().unwrap().contains(&ours.id().to_string()));
        drop(ours);
        assert!(left_by_run(&run).is_empty());
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn mounts_and_groups_are_detected() {
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

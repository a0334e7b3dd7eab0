//! What tests leave on a host, looked up rather than assumed.
//!
//! The host is alive: other people's mounts, control groups, loop devices and processes come and go during a test. Only
//! what carries a mark of the test or of its run counts.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{fs, process};

use crate::scratch::RUN_ENV;
use crate::{cgroups, mounts, scratch};

/// How long something that was let go may stay: the kernel detaches a loop device only after its last user, and anybody
/// who lists the devices is one.
const GRACE: Duration = Duration::from_secs(10);

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
        let new = settled(|| left_by_this_test().difference(&self.before).cloned().collect());
        assert!(new.is_empty(), "left on the host:\n  {}", new.join("\n  "));
    }
}

/// Returns everything that carries the mark of a run: scratch directories, mounts, loop devices, control groups, and
/// processes by command line, environment, control group or root. The caller and its ancestors do not count.
///
/// Waits up to ten seconds for what the kernel is about to let go.
#[must_use]
pub fn left_by_run(run: &str) -> Vec<String> {
    let mark = format!("-{run}-");
    settled(|| {
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

/// What `look` finds once that is nothing, or after the grace.
fn settled(look: impl Fn() -> Vec<String>) -> Vec<String> {
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

/// All that is named so: mounts, loop devices by their backing file, control groups, processes by command line, group or
/// root, and by environment if a run is given. One look at the host, however many the names.
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
        .collect()
}

/// This process and those it was started by: a shell or sudo(8) may have a name on its command line.
fn ancestors() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    let mut next = Some(process::id());
    while let Some(pid) = next.filter(|pid| found.insert(*pid)) {
        next = status_field(pid, "PPid:").parse().ok();
    }
    found
}

/// Whether the process was started with the run's mark in its environment.
fn was_started_in(pid: u32, run: &str) -> bool {
    let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
    let setting = format!("{RUN_ENV}={run}");
    environment.split(|byte| *byte == 0).any(|entry| OsStr::from_bytes(entry) == &*setting)
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
    status_field(pid, "State:").starts_with('Z')
        && status_field(pid, "PPid:") != process::id().to_string()
}

fn describe(pid: u32) -> String {
    format!("process {pid} {} ({})", status_field(pid, "Name:"), status_field(pid, "State:"))
}

/// A field of `/proc/<pid>/status`; empty if the process is gone.
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
    fn a_runs_remains_are_seen() {
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

//! The remains of a VM, found by the VM's uid and the jail's id.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, Uid, kill_process};

/// The processes of a uid that have not ended, with name and state. A thread group whose leader has ended counts.
pub(crate) fn processes(uid: u32) -> Vec<(i32, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().flatten() {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let status = fs::read(entry.path().join("status")).unwrap_or_default();
        let status = String::from_utf8_lossy(&status);
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
        let owner = field("Uid:").and_then(|line| line.split_whitespace().next());
        let threads = field("Threads:").and_then(|line| line.trim().parse::<u32>().ok());
        let ended = field("State:").is_some_and(|state| state.trim().starts_with(['Z', 'X']));
        if owner == Some(&uid.to_string()) && !(ended && threads <= Some(1)) {
            let name = field("Name:").unwrap_or_default().trim().to_owned();
            found.push((pid, format!("{name:?} {:?}", field("State:").unwrap_or_default().trim())));
        }
    }
    found
}

/// Kills every process of a uid, until there is none: for what a verb refused to kill.
pub(crate) fn kill_all(uid: u32) {
    for _ in 0..1_000 {
        let found = processes(uid);
        if found.is_empty() {
            return;
        }
        for (pid, _) in found {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("uid {uid} has processes that do not die: {:?}", processes(uid));
}

/// Everything there is of a VM on the host, one a line.
pub(crate) fn of(uid: u32, jail_id: &str, base: &Path, cgroup_parent: &str) -> Vec<String> {
    let mut left: Vec<_> =
        processes(uid).into_iter().map(|(pid, what)| format!("process {pid} {what}")).collect();
    let groups = testkit::cgroups_named(cgroup_parent, jail_id);
    left.extend(groups.iter().map(|dir| format!("control group {}", dir.display())));
    left.extend(ipc_objects(uid));
    left.extend(files(base, uid, jail_id));
    for mount in testkit::mounts::below(base).iter().filter(|point| *point != base) {
        left.push(format!("mount {}", mount.display()));
    }
    left
}

/// Objects of System V IPC of this uid in this process's namespace (sysvipc(7)).
fn ipc_objects(uid: u32) -> Vec<String> {
    let mut found = Vec::new();
    for kind in ["shm", "sem", "msg"] {
        let table = fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap_or_default();
        let mut lines = table.lines();
        let Some(column) =
            lines.next().and_then(|head| head.split_whitespace().position(|name| name == "uid"))
        else {
            continue;
        };
        let own =
            lines.filter(|line| line.split_whitespace().nth(column) == Some(&uid.to_string()));
        found.extend(own.map(|line| format!("{kind}: {line}")));
    }
    found
}

/// Files below the base that belong to this uid, or have its or the jail's name.
fn files(base: &Path, uid: u32, jail_id: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut dirs = vec![base.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let Ok(meta) = entry.path().symlink_metadata() else { continue };
            let name = entry.file_name().to_string_lossy().into_owned();
            if meta.uid() == uid || name == jail_id || name == uid.to_string() {
                found.push(format!("file {} of uid {}", entry.path().display(), meta.uid()));
            } else if meta.is_dir() {
                dirs.push(entry.path());
            }
        }
    }
    found
}

/// Message queues of this uid, in this process's namespace (mq_overview(7)); needs a mount namespace of its own.
pub(crate) fn message_queues(uid: u32, at: &Path) -> Vec<PathBuf> {
    let none = None::<&str>;
    let flags = nix::mount::MsFlags::empty();
    fs::create_dir_all(at).unwrap();
    if nix::mount::mount(Some("mqueue"), at, Some("mqueue"), flags, none).is_err() {
        return Vec::new();
    }
    let entries = fs::read_dir(at).into_iter().flatten().flatten().map(|entry| entry.path());
    let own = |path: &PathBuf| fs::metadata(path).is_ok_and(|meta| meta.uid() == uid);
    let found = entries.filter(own).collect();
    nix::mount::umount(at).unwrap();
    found
}

/// Waits until the kernel has no task of this uid, zombies included (getpriority(2)); whether it came to that.
pub(crate) fn no_task(uid: u32) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while rustix::process::getpriority_user(Uid::from_raw(uid)).is_ok() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    true
}

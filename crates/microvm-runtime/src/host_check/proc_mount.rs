//! Whether `/proc` is mounted, whole, and of this process's pid namespace; and what it says of this thread.

use std::fs;
use std::io;

use super::fault::Fault;
use crate::error::ErrorKind;
use crate::sys::{Errno, file, process};
use crate::vmm;

/// A file that the record needs, and that `mount -o subset=pid` hides.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

const REMOUNT: &str = "Mount the procfs of this pid namespace: `mount -t proc proc /proc` (`unshare --pid --fork --mount-proc`).";

/// The fields of `/proc/thread-self/status` that other checks use.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct ThreadStatus {
    /// Effective capabilities, a bit each.
    pub(super) effective: u64,
    /// Capabilities that an exec can still give.
    pub(super) bounding: u64,
    /// Whether a seccomp filter is installed.
    pub(super) filtered: bool,
}

/// Reads `/proc/thread-self/status` and proves that it is about this thread, by the pid and the thread id of this pid
/// namespace.
pub(super) fn check() -> Result<ThreadStatus, Fault> {
    #[expect(clippy::disallowed_methods, reason = "a file of procfs")]
    let text = match fs::read("/proc/thread-self/status") {
        Ok(text) => text,
        Err(error) => return Err(unreadable(&error)),
    };
    let status = String::from_utf8_lossy(&text);
    let field = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).map(str::trim)
    };
    let (pid, thread) = process::pid_and_thread();
    let (said_pid, said_thread) = (field("Tgid"), field("Pid"));
    // In every pid namespace from that of the mount down to that of the process: one number if they are the same one.
    let nested = field("NSpid").is_some_and(|ids| ids.split_whitespace().count() > 1);
    if nested || said_pid != Some(&*pid.to_string()) || said_thread != Some(&*thread.to_string()) {
        return Err(Fault::new(
            ErrorKind::Unsupported,
            format!(
                "/proc is the procfs of another pid namespace: this is process {pid}, and there it is {}",
                said_pid.unwrap_or("unnamed")
            ),
            REMOUNT,
        ));
    }
    if let Err(errno) = file::check_readable(BOOT_ID) {
        return Err(Fault::new(
            ErrorKind::Unsupported,
            format!("{BOOT_ID} cannot be read ({})", io::Error::from(errno)),
            "Mount /proc whole, without `subset=pid`, and leave /proc/sys readable.",
        ));
    }
    let mask = |key| field(key).and_then(|mask| u64::from_str_radix(mask, 16).ok());
    Ok(ThreadStatus {
        effective: mask("CapEff").unwrap_or_default(),
        bounding: mask("CapBnd").unwrap_or_default(),
        filtered: field("Seccomp") == Some("2"),
    })
}

fn unreadable(error: &io::Error) -> Fault {
    let no_descriptor = match Errno::from_io_error(error) {
        Some(Errno::MFILE) => Some(vmm::files_hint()),
        Some(Errno::NFILE) => {
            Some("Raise the sysctl fs.file-max: the host has no descriptor left.".to_owned())
        }
        _ => None,
    };
    if let Some(fix) = no_descriptor {
        let found = format!("/proc/thread-self/status cannot be opened: {error}");
        return Fault::new(ErrorKind::Filesystem, found, fix);
    }
    let is_proc = file::path_is_on("/proc", file::PROCFS).unwrap_or(false);
    match (is_proc, error.kind()) {
        (false, _) => Fault::new(
            ErrorKind::Unsupported,
            "no procfs is mounted at /proc",
            "Mount it: `mount -t proc proc /proc`.",
        ),
        (true, io::ErrorKind::NotFound) => Fault::new(
            ErrorKind::Unsupported,
            "/proc is the procfs of another pid namespace, which does not have this process",
            REMOUNT,
        ),
        (true, _) => Fault::new(
            ErrorKind::Unsupported,
            format!("/proc/thread-self/status cannot be read ({error})"),
            "Look at what allows and refuses files to this process, such as AppArmor, SELinux and descriptor limits.",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_is_this_threads() {
        let status = check().unwrap();
        std::thread::spawn(move || assert_eq!(check().unwrap(), status)).join().unwrap();
    }
}

//! The files of `/proc/<pid>`: `proc(5)`.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use rustix::fs::{Mode, OFlags};

use crate::error::{ErrorKind, Failure, Result};

fn failed(
    pid: u32,
    name: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Failure {
    Failure::new(ErrorKind::Identity, "look at the VMM")
        .path(format!("/proc/{pid}/{name}"))
        .source_of(error)
}

/// The text of one file.
pub(super) fn text(pid: u32, name: &str) -> Result<String> {
    #[expect(clippy::disallowed_methods, reason = "a file of procfs, named by a number")]
    fs::read_to_string(format!("/proc/{pid}/{name}")).map_err(|error| failed(pid, name, error))
}

/// What one magic link leads to, held without opening it (`O_PATH`).
pub(super) fn held(pid: u32, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/{name}");
    rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| failed(pid, name, errno))
}

/// What one magic link says it leads to.
pub(super) fn link(pid: u32, name: &str) -> Result<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a link of procfs, named by a number")]
    fs::read_link(format!("/proc/{pid}/{name}")).map_err(|error| failed(pid, name, error))
}

/// The numbers a directory has entries of: processes, threads or descriptors. (The standard library's `read_dir` panics
/// over a directory that does not close.)
pub(super) fn numbers(path: &str) -> io::Result<Vec<u32>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let entries = rustix::fs::Dir::new(rustix::fs::open(path, flags, Mode::empty())?)?;
    let mut numbers = Vec::new();
    for entry in entries {
        let entry = entry?;
        numbers.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<u32>().ok()));
    }
    Ok(numbers)
}

/// Whether one of its threads has a name that begins so; `false` also of a process that has ended.
pub(super) fn has_thread(pid: u32, name: &str) -> bool {
    let threads = numbers(&format!("/proc/{pid}/task")).unwrap_or_default();
    // The newest last: it is the most likely.
    threads.iter().rev().any(|thread| {
        text(pid, &format!("task/{thread}/comm")).is_ok_and(|comm| comm.starts_with(name))
    })
}

/// The numbers after `key:` in a `status` file.
pub(super) fn field(status: &str, key: &str) -> Vec<u32> {
    let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
    line.map_or_else(Vec::new, |line| {
        line.split_whitespace().filter_map(|number| number.parse().ok()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_found_by_its_name() {
        let me = std::process::id();
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let thread = std::thread::Builder::new()
            .name("fc_vcpu 0".to_owned())
            .spawn(move || receiver.recv())
            .unwrap();
        // The new thread names itself.
        while !has_thread(me, "fc_vcpu") {
            std::thread::yield_now();
        }
        assert!(!has_thread(me, "fc_api"));
        drop(sender);
        let _ = thread.join();
    }

    #[test]
    fn fields_are_numbers_after_their_key() {
        let status = "Name:\tx Uid: 7\nUid:\t1\t2\t3\t4\nUidMap:\t9\n";
        assert_eq!(field(status, "Uid"), [1, 2, 3, 4]);
        assert!(field(status, "Gid").is_empty());
    }
}

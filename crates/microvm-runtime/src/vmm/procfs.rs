//! The files of `/proc/<pid>`: `proc(5)`. Processes write part of them, so each read is bounded and takes any bytes.

use std::io::{self, Read as _};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::str::FromStr;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Errno, file};

/// Most bytes that are read of one file. A process can make its command line gigabytes long (`PR_SET_MM_MAP`).
const MAX_BYTES: u64 = 64 << 10;

fn failed(
    pid: u32,
    name: &str,
    error: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    Error::new(ErrorKind::Identity, "look at the VMM")
        .path(format!("/proc/{pid}/{name}"))
        .source_of(error)
}

/// Reads the first 64 KiB of a file of procfs.
pub(crate) fn read(path: &str) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file::open_for_reading(path)?.take(MAX_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads the first 64 KiB of `/proc/<pid>/<name>`.
pub(super) fn bytes(pid: u32, name: &str) -> Result<Vec<u8>> {
    read(&format!("/proc/{pid}/{name}")).map_err(|error| failed(pid, name, error))
}

/// Opens the target of a magic link with `O_PATH`.
pub(super) fn held(pid: u32, name: &str) -> Result<OwnedFd> {
    let path = format!("/proc/{pid}/{name}");
    file::open_path(path).map_err(|errno| failed(pid, name, errno))
}

/// Reads the target of a magic link as a path.
pub(super) fn link(pid: u32, name: &str) -> Result<PathBuf> {
    #[expect(clippy::disallowed_methods, reason = "a link of procfs, named by a number")]
    std::fs::read_link(format!("/proc/{pid}/{name}")).map_err(|error| failed(pid, name, error))
}

/// Returns the effective uid of a process: the owner of `/proc/<pid>` (`statx(2)`), which is cheaper than reading
/// `status`. `None` if the process does not exist.
pub(super) fn effective_uid(pid: u32) -> Option<u32> {
    file::directory_owner(&format!("/proc/{pid}"))
}

/// Returns true if the error means that the process has exited.
pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOENT | Errno::SRCH))
}

/// Reads the numbers among the names of a directory, one at a time: processes, threads or descriptors.
pub(super) fn numbers(path: &str) -> io::Result<impl Iterator<Item = io::Result<u32>> + use<>> {
    Ok(file::numbers(path)?.map(|number| Ok(number?)))
}

/// The pids of all processes of this pid namespace, one at a time.
pub(super) fn processes() -> Result<impl Iterator<Item = Result<u32>>> {
    let failed = |error: io::Error| {
        Error::new(ErrorKind::Identity, "list the processes").path("/proc").source_of(error)
    };
    Ok(numbers("/proc").map_err(failed)?.map(move |pid| pid.map_err(failed)))
}

/// Returns true if a thread of the process has a name that begins with `name`; false if the process has exited.
pub(super) fn has_thread(pid: u32, name: &str) -> bool {
    let Ok(threads) = numbers(&format!("/proc/{pid}/task")) else { return false };
    threads.flatten().any(|thread| {
        bytes(pid, &format!("task/{thread}/comm"))
            .is_ok_and(|comm| comm.starts_with(name.as_bytes()))
    })
}

/// The value after `key:` in a `status` file, without blanks around it.
pub(super) fn value<'a>(status: &'a [u8], key: &str) -> Option<&'a [u8]> {
    let mut lines = status.split(|byte| *byte == b'\n');
    let value = lines.find_map(|line| line.strip_prefix(key.as_bytes())?.strip_prefix(b":"));
    value.map(<[u8]>::trim_ascii)
}

/// The numbers after `key:` in a `status` file.
pub(super) fn field(status: &[u8], key: &str) -> Vec<u32> {
    let words =
        value(status, key).into_iter().flat_map(|value| value.split(u8::is_ascii_whitespace));
    words.filter_map(number).collect()
}

/// The fields of a `stat` file from the state, field 3, on: those after the last `)`, because a process may choose any name
/// in the parentheses.
pub(super) fn after_name(stat: &[u8]) -> Option<impl DoubleEndedIterator<Item = &[u8]>> {
    let end = stat.windows(2).rposition(|pair| pair == b") ")?;
    Some(stat[end + 2..].trim_ascii_end().split(|byte| *byte == b' '))
}

/// A number in decimal digits.
pub(super) fn number<T: FromStr>(digits: &[u8]) -> Option<T> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_are_found_by_name() {
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
    fn status_fields_are_numbers() {
        let status = b"Name:\tx \xff Uid: 7\nUid:\t1\t2\t3\t4\nUidMap:\t9\n";
        assert_eq!(field(status, "Uid"), [1, 2, 3, 4]);
        assert!(field(status, "Gid").is_empty());
    }

    #[test]
    fn row_41_a_name_may_be_any_bytes() {
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        let (send_id, thread_id) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let name = std::ffi::CString::new(b"\xff\xfe".as_slice()).unwrap();
            rustix::thread::set_name(&name).unwrap();
            send_id.send(rustix::thread::gettid().as_raw_nonzero().get()).unwrap();
            let _ = receiver.recv();
        });
        let id = u32::try_from(thread_id.recv().unwrap()).unwrap();
        for file in ["status", "stat", "comm"] {
            let bytes = bytes(id, file).unwrap();
            assert!(bytes.windows(2).any(|pair| pair == b"\xff\xfe"), "{file}");
        }
        assert!(!field(&bytes(id, "status").unwrap(), "Uid").is_empty());
        drop(sender);
        thread.join().unwrap();
    }

    #[test]
    fn row_42_reads_are_bounded() {
        assert_eq!(read("/dev/zero").unwrap().len() as u64, MAX_BYTES);
    }

    #[test]
    fn a_processs_uid_is_its_directorys() {
        let me = std::process::id();
        let status = bytes(me, "status").unwrap();
        assert_eq!(effective_uid(me), field(&status, "Uid").get(1).copied());
        assert_eq!(effective_uid(u32::MAX), None);
        assert!(processes().unwrap().any(|pid| pid.unwrap() == me));
    }
}

//! A process that cannot be taken for another: pid, start time and boot.

use serde::{Deserialize, Serialize};

use super::procfs;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::FileStat;
use crate::text::{QUOTED, escaped, quoted};

/// A unique mark of a process on this host: the pid, the start time and the boot.
///
/// Source: `proc_pid_stat(5)`, field 22; `/proc/sys/kernel/random/boot_id`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessStamp {
    pid: u32,
    /// In clock ticks since the boot.
    start_time: u64,
    boot_id: String,
}

impl ProcessStamp {
    /// The process that has this pid now; `None` where none has.
    pub(crate) fn of(pid: u32) -> Result<Option<Self>> {
        let Some(stat) = Stat::read(pid)? else { return Ok(None) };
        Ok(Some(Self { pid, start_time: stat.start_time, boot_id: boot_id()? }))
    }

    /// Returns the pid on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns true if the host was not started again since.
    pub(crate) fn is_of_this_boot(&self) -> Result<bool> {
        Ok(boot_id()? == self.boot_id)
    }

    /// Returns true if the process still runs. A zombie does not run, unless only the first thread has exited.
    pub(crate) fn still_alive(&self) -> Result<bool> {
        Ok(match Stat::read(self.pid)? {
            Some(stat) => {
                stat.runs && stat.start_time == self.start_time && boot_id()? == self.boot_id
            }
            None => false,
        })
    }
}

/// The needed fields of `/proc/<pid>/stat`.
pub(super) struct Stat {
    pub(super) runs: bool,
    pub(super) start_time: u64,
}

impl Stat {
    fn read(pid: u32) -> Result<Option<Self>> {
        let path = format!("/proc/{pid}/stat");
        let failed = || Error::new(ErrorKind::Identity, "read the process's state").path(&path);
        let text = match procfs::read(&path) {
            Ok(text) => text,
            Err(error) if procfs::is_gone(&error) => return Ok(None),
            Err(error) => return Err(failed().source_of(error)),
        };
        Self::parse(&text)
            .map(Some)
            .ok_or_else(|| failed().because(format!("it reads {}", quoted(&text))))
    }

    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let mut fields = procfs::after_name(text)?;
        let state = fields.next()?;
        let threads: u32 = procfs::number(fields.nth(16)?)?;
        let start_time = procfs::number(fields.nth(1)?)?;
        // A process whose first thread has ended shows that thread's state, while other threads run on.
        let runs = !matches!(state, b"Z" | b"X" | b"x") || threads > 1;
        Some(Self { runs, start_time })
    }
}

/// Returns the inode of this thread's pid namespace.
pub(crate) fn pid_namespace() -> Result<u64> {
    let path = "/proc/thread-self/ns/pid";
    let namespace = FileStat::of_path(path).map_err(|errno| {
        Error::new(ErrorKind::Identity, "read the pid namespace").path(path).source_of(errno)
    })?;
    Ok(namespace.id().1)
}

fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = procfs::read(path).map_err(|error| {
        Error::new(ErrorKind::Identity, "read the boot id").path(path).source_of(error)
    })?;
    Ok(escaped(text.trim_ascii(), QUOTED))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reused_pids_are_told_apart() {
        let stamp = ProcessStamp::of(std::process::id()).unwrap().unwrap();
        assert!(stamp.still_alive().unwrap());
        assert!(
            !ProcessStamp { start_time: stamp.start_time - 1, ..stamp.clone() }
                .still_alive()
                .unwrap()
        );
        assert!(!ProcessStamp { boot_id: "another".to_owned(), ..stamp }.still_alive().unwrap());
    }

    #[test]
    fn odd_process_names_are_parsed() {
        let stat =
            Stat::parse(b"7 (a\xff) Z 9) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20\n")
                .unwrap();
        assert!(stat.runs);
        assert_eq!(stat.start_time, 4711);
        assert!(
            !Stat::parse(b"7 (x) Z 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 1 18 4711 20\n")
                .unwrap()
                .runs
        );
        assert!(Stat::parse(b"garbage").is_none());
    }

    #[test]
    fn a_leader_may_end_first() {
        let runs = |state: &str, threads: u32| {
            let text =
                format!("7 (a) b) {state} 1 7 7 0 -1 0 0 0 0 0 0 0 0 0 20 0 {threads} 0 99 0 0");
            let stat = Stat::parse(text.as_bytes()).unwrap();
            assert_eq!(stat.start_time, 99);
            stat.runs
        };
        assert!(runs("S", 1) && runs("Z", 2) && !runs("Z", 1) && !runs("X", 0));
    }
}

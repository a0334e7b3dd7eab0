//! Finding the processes that may be, or become, a jail's VMM.

use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Instant;

use jail_fs::Dir;

use super::identity::{Expected, is_in_group, is_rooted_in, rooted_in};
use super::pidfd;
use super::stamp::ProcessStamp;
use super::vmm_process::Process;
use crate::error::Result;

/// Most processes that are held: how many a jail has is the VM's choice.
const MOST: usize = 64;

/// Largest pid file that is read, in bytes.
const PID_FILE: u64 = 16;

/// The places to look for the VMM, and the marks of the VMM.
pub(crate) struct Search<'a> {
    /// The root directory of the jail.
    pub(crate) root: &'a Dir,
    pub(crate) expected: &'a Expected,
    /// The members of the VM's control group.
    pub(crate) members: &'a dyn Fn() -> Result<Vec<u32>>,
}

impl Search<'_> {
    /// Opens the pidfd of each new process in the jail, except the jailer.
    ///
    /// The control group's members and the pid file are only hints: a process is in the jail if the process's root
    /// directory is the jail's root inode. A process that is ending has no root directory any more; the process group that
    /// the jailer leads identifies such a process until the parent reaps it. `thorough` looks at every process of the
    /// host, twice, since a process may fork during the first look.
    pub(super) fn look(&self, jailer: u32, held: &mut Vec<Process>, thorough: bool) -> Result<()> {
        let mut hints: Vec<_> = self.pid_file().into_iter().collect();
        hints.extend((self.members)()?);
        self.hold(&hints, jailer, held)?;
        let mut looks = if thorough { 2 } else { 0 };
        while looks > 0 && alive(held)?.is_empty() {
            self.hold(&rooted_in(self.expected.root)?, jailer, held)?;
            looks -= 1;
        }
        Ok(())
    }

    fn hold(&self, pids: &[u32], jailer: u32, held: &mut Vec<Process>) -> Result<()> {
        for &pid in pids {
            if pid == jailer
                || held.iter().any(|process| process.status.is_none() && process.pid() == pid)
            {
                continue;
            }
            if held.len() == MOST {
                return Ok(());
            }
            let Some(pidfd) = pidfd::open(pid)? else { continue };
            if is_rooted_in(pid, self.expected.root) || is_in_group(pid, jailer) {
                let stamp = ProcessStamp::of(pid)?;
                held.extend(stamp.map(|stamp| Process { stamp, pidfd, status: None }));
            }
        }
        Ok(())
    }

    /// Returns the pid in the jailer's pid file, as a hint: the VM can change the file.
    fn pid_file(&self) -> Option<u32> {
        let bytes =
            jail_fs::read_small(self.root, format!("{}.pid", self.expected.exec_name), PID_FILE)
                .ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }
}

/// Returns the processes that have not ended.
pub(super) fn alive(held: &mut [Process]) -> Result<Vec<BorrowedFd<'_>>> {
    for process in held.iter_mut() {
        process.wait(Some(Instant::now()))?;
    }
    Ok(held.iter().filter(|process| process.status.is_none()).map(Process::as_fd).collect())
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own files")]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Command, Stdio};

    use jail_fs::InodeId;

    use super::*;
    use crate::vmm::status::ExitStatus;

    #[test]
    fn zombies_are_found_by_group() {
        let dir = tempfile::tempdir().unwrap();
        let root = Dir::from_std_file(File::open(dir.path()).unwrap());
        let expected = Expected {
            uid: 0,
            gid: 0,
            root: InodeId::of(&root).unwrap(),
            exec_name: "firecracker".to_owned(),
            boots: false,
        };
        let search = Search { root: &root, expected: &expected, members: &|| Ok(Vec::new()) };
        let mut jailer = Command::new("/bin/sh")
            .args(["-c", "read line"])
            .process_group(0)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let held_of = |group: i32| {
            #[expect(clippy::zombie_processes, reason = "reaped by pidfd, or by the test's end")]
            let child = Command::new("/bin/sh")
                .args(["-c", "exit 3"])
                .process_group(group)
                .spawn()
                .unwrap();
            let pidfd = pidfd::open(child.id()).unwrap().unwrap();
            assert!(pidfd::ended_by(pidfd.as_fd(), None).unwrap());
            fs::write(dir.path().join("firecracker.pid"), child.id().to_string()).unwrap();
            let mut held = Vec::new();
            search.look(jailer.id(), &mut held, false).unwrap();
            assert!(alive(&mut held).unwrap().is_empty());
            pidfd::reap(&[pidfd], Instant::now());
            held.iter().filter_map(|process| process.status).collect::<Vec<_>>()
        };
        let group = i32::try_from(jailer.id()).unwrap();
        assert_eq!(held_of(group), [ExitStatus::Exited(3)]);
        assert_eq!(held_of(0), [], "a number alone makes nobody the VMM");
        drop(jailer.stdin.take());
        jailer.wait().unwrap();
    }
}

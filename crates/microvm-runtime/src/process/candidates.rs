//! The processes that may be, or become, a jail's VMM.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

use jail_fs::{Dir, InodeId};

use super::identity::{Expected, doubt, is_rooted_in, rooted_in};
use super::pidfd;
use super::stamp::ProcessStamp;
use super::status::ExitStatus;
use super::vmm::Process;
use crate::error::{Failure, Result};

/// Largest pid file that is read, in bytes.
const PID_FILE: u64 = 16;

/// A process that is in the jail, or on its way there; held, so that its number cannot come to mean another.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) stamp: ProcessStamp,
    pub(super) pidfd: OwnedFd,
    /// Once it has ended.
    pub(super) status: Option<ExitStatus>,
}

impl Candidate {
    /// Of a process that is already held; `None` where it is gone and reaped.
    pub(super) fn held(pid: u32, pidfd: OwnedFd) -> Result<Option<Self>> {
        Ok(ProcessStamp::of(pid)?.map(|stamp| Self { stamp, pidfd, status: None }))
    }

    pub(super) fn pid(&self) -> u32 {
        self.stamp.pid()
    }

    /// It is the VMM of the jail at this root.
    pub(super) fn into_process(self, root: InodeId) -> Process {
        let Self { stamp, pidfd, status } = self;
        Process { stamp, pidfd, root, status }
    }

    /// Whether it has ended by now; its status is known from then on.
    pub(super) fn has_ended(&mut self) -> Result<bool> {
        if self.status.is_none() && pidfd::ended_by(self.pidfd.as_fd(), Some(Instant::now()))? {
            self.status = Some(pidfd::status(self.pidfd.as_fd())?);
        }
        Ok(self.status.is_some())
    }

    /// Whether it is the VMM by now, by the kernel's word.
    ///
    /// It may go on or end between two looks, so what does not fit is a doubt and no failure.
    pub(super) fn prove(
        &self,
        expected: &Expected,
        root: &Dir,
    ) -> std::result::Result<(), Failure> {
        expected.prove(self.pid())?;
        expected.prove_exec_copy(self.pid(), root)?;
        // What was read was about this process only if it still has its number.
        match pidfd::ended_by(self.pidfd.as_fd(), Some(Instant::now()))? {
            false => Ok(()),
            true => Err(doubt(self.pid(), "it has ended")),
        }
    }
}

/// Where to look for the VMM, and what it is known by.
pub(crate) struct Search<'a> {
    /// The jail's.
    pub(crate) root: &'a Dir,
    pub(crate) expected: &'a Expected,
    /// The members of the VM's control group.
    pub(crate) members: &'a dyn Fn() -> Result<Vec<u32>>,
}

impl Search<'_> {
    /// Holds what is found in the jail and not held yet, but for the jailer, which is in it too.
    ///
    /// The control group's members and the pid file say whom to look at, and are believed no further: who has the
    /// jail's root inode as its root directory is in the jail. `thorough` asks every process of the host, twice, as one
    /// may fork behind a first look's back.
    pub(super) fn look(
        &self,
        jailer: u32,
        held: &mut Vec<Candidate>,
        thorough: bool,
    ) -> Result<()> {
        let mut hints = (self.members)()?;
        hints.extend(self.pid_file());
        self.hold(&hints, jailer, held)?;
        let mut looks = if thorough { 2 } else { 0 };
        while looks > 0 && alive(held)?.is_empty() {
            self.hold(&rooted_in(self.expected.root)?, jailer, held)?;
            looks -= 1;
        }
        Ok(())
    }

    fn hold(&self, pids: &[u32], jailer: u32, held: &mut Vec<Candidate>) -> Result<()> {
        for &pid in pids {
            if pid == jailer
                || held.iter().any(|candidate| candidate.status.is_none() && candidate.pid() == pid)
            {
                continue;
            }
            let Some(pidfd) = pidfd::open(pid)? else { continue };
            if is_rooted_in(pid, self.expected.root)
                && let Some(candidate) = Candidate::held(pid, pidfd)?
            {
                held.push(candidate);
            }
        }
        Ok(())
    }

    /// What the jailer wrote, while it is root's word; later it is anyone's, and a hint is all it ever is.
    fn pid_file(&self) -> Option<u32> {
        let bytes =
            jail_fs::read_small(self.root, format!("{}.pid", self.expected.exec_name), PID_FILE)
                .ok()?;
        std::str::from_utf8(&bytes).ok()?.trim().parse().ok()
    }
}

/// Those that have not ended.
pub(super) fn alive(held: &mut [Candidate]) -> Result<Vec<BorrowedFd<'_>>> {
    for candidate in held.iter_mut() {
        candidate.has_ended()?;
    }
    Ok(held
        .iter()
        .filter(|candidate| candidate.status.is_none())
        .map(|candidate| candidate.pidfd.as_fd())
        .collect())
}

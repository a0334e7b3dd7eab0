//! The VMM's process, held by a pidfd: proof, wait, kill, inspection.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use jail_fs::{Dir, InodeId};

use super::identity::{Expected, doubt};
use super::inspect::Inspection;
use super::pidfd;
use super::stamp::ProcessStamp;
use super::status::ExitStatus;
use super::streams::Streams;
use crate::deadline::{Deadline, EXIT_TIMEOUT};
use crate::error::{Error, Result};

/// A process, held by a pidfd so that the pid cannot be reused unnoticed.
#[derive(Debug)]
pub(crate) struct Process {
    pub(super) stamp: ProcessStamp,
    pub(super) pidfd: OwnedFd,
    /// The exit status, once known: a child can be reaped only once.
    pub(super) status: Option<ExitStatus>,
}

/// A started VMM with the streams.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) process: Process,
    pub(crate) streams: Streams,
}

impl Process {
    /// Takes up a process that was recorded; `None` where it has ended.
    ///
    /// # Errors
    /// Where it lives and is not what is expected.
    pub(crate) fn adopt(stamp: &ProcessStamp, expected: &Expected) -> Result<Option<Self>> {
        let Some(pidfd) = pidfd::open(stamp.pid())? else { return Ok(None) };
        // After the open: the number cannot come to mean another process now.
        if !stamp.still_alive()? {
            return Ok(None);
        }
        match expected.prove(stamp.pid()) {
            // What was read was about this process only if it has not ended since.
            Ok(()) if pidfd::ended_by(pidfd.as_fd(), Deadline::now())? => return Ok(None),
            Ok(()) => {}
            // An exiting process loses the root first, and the pidfd reports the exit shortly later.
            Err(_) if pidfd::ended_by(pidfd.as_fd(), Deadline::after(EXIT_TIMEOUT))? => {
                return Ok(None);
            }
            Err(doubt) => return Err(doubt),
        }
        Ok(Some(Self { stamp: stamp.clone(), pidfd, status: None }))
    }

    /// Proves that the process is the VMM, from the kernel's files.
    ///
    /// The process may go on or end between two looks, so a mismatch is a doubt and not a failure.
    pub(super) fn prove(&self, expected: &Expected, root: &Dir) -> std::result::Result<(), Error> {
        expected.prove(self.pid())?;
        expected.prove_exec_copy(self.pid(), root)?;
        // What was read was about this process only if it still has its number.
        self.refuse_ended()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.stamp.pid()
    }

    pub(crate) fn stamp(&self) -> &ProcessStamp {
        &self.stamp
    }

    /// Waits until the process has ended; returns `None` if the deadline passed first.
    pub(crate) fn wait(&mut self, deadline: impl Into<Deadline>) -> Result<Option<ExitStatus>> {
        if let Some(status) = self.status {
            return Ok(Some(status));
        }
        if !pidfd::ended_by(self.pidfd.as_fd(), deadline)? {
            return Ok(None);
        }
        self.status = Some(self.end()?);
        Ok(self.status)
    }

    /// Waits until the process has ended (`poll(2)` on the pidfd); returns false if the deadline passed first. Any
    /// number of threads can wait.
    pub(crate) fn ends_by(&self, deadline: Deadline) -> Result<bool> {
        if self.status.is_some() { Ok(true) } else { pidfd::ended_by(self.as_fd(), deadline) }
    }

    /// The status of a process that has ended. It is read once: a child is reaped by it.
    pub(crate) fn end(&self) -> Result<ExitStatus> {
        self.status.map_or_else(|| pidfd::status(self.as_fd()), Ok)
    }

    /// SIGKILL. Fine for one that has ended.
    pub(crate) fn kill(&self) -> Result<()> {
        pidfd::kill(self.pidfd.as_fd())
    }

    /// Reads the kernel's view of the process; `jail` is the inode of the jail's root.
    pub(crate) fn inspect(&self, jail: InodeId) -> Result<Inspection> {
        self.refuse_ended()?;
        let seen = Inspection::of(self.pid(), jail);
        // Whatever was read, or failed to be: of a process that has ended the number may be another's by now.
        self.refuse_ended()?;
        seen
    }

    fn refuse_ended(&self) -> Result<()> {
        match self.ends_by(Deadline::now())? {
            false => Ok(()),
            true => Err(doubt(self.pid(), "it has ended")),
        }
    }
}

impl AsFd for Process {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.pidfd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    /// The number of a process that has ended may be another's by now.
    #[test]
    fn row_53_the_dead_describe_nobody() {
        let mut child = std::process::Command::new("/bin/cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let pidfd = pidfd::open(child.id()).unwrap().unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        let me = ProcessStamp::of(std::process::id()).unwrap().unwrap();
        let process = Process { stamp: me, pidfd, status: None };
        let root = InodeId::of(super::super::procfs::held(std::process::id(), "root").unwrap());
        let error = process.inspect(root.unwrap()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Identity);
        assert!(error.contains("has ended"), "{error}");
    }
}

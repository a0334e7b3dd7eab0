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
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::sys::file::{self, FileStat};

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
    /// Opens the recorded process; `None` if the process has ended.
    ///
    /// # Errors
    /// [`Identity`](crate::ErrorKind::Identity) if the process is alive and is not the expected one.
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

    /// Opens the network namespace of the process (`/proc/<pid>/ns/net`).
    ///
    /// The VMM has no privilege over the namespace that the launcher gave it, but could make another with a user
    /// namespace of its own. A namespace that belongs to the launcher's user namespace is not the VMM's work.
    pub(crate) fn network_namespace(&self) -> Result<OwnedFd> {
        let path = format!("/proc/{}/ns/net", self.pid());
        let failed =
            || Error::new(ErrorKind::Identity, "open the VM's network namespace").path(&path);
        self.refuse_ended()?;
        let opened = file::open_for_reading(&path);
        // Whatever was opened, or failed to be: of a process that has ended the number may be another's by now.
        self.refuse_ended()?;
        let namespace = OwnedFd::from(opened.map_err(|errno| failed().source_of(errno))?);
        let ours =
            FileStat::of_path("/proc/self/ns/user").map_err(|errno| failed().source_of(errno))?;
        let owner = sys::user_namespace_of(&namespace)
            .and_then(|owner| Ok(FileStat::of(owner)?))
            .map_err(|error| failed().source_of(error))?;
        if owner.id() != ours.id() {
            return Err(failed().because("it belongs to another user namespace"));
        }
        Ok(namespace)
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

    /// The namespace of a process of its own user namespace is nothing to set up an interface in.
    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_76_a_vmms_own_namespace_is_refused() {
        for (arguments, refused) in
            [(&["--net", "cat"][..], false), (&["--user", "--net", "cat"], true)]
        {
            let mut child = std::process::Command::new("unshare")
                .args(arguments)
                .stdin(std::process::Stdio::piped())
                .stdout(std::process::Stdio::piped())
                .spawn()
                .unwrap();
            // It answers once it is in its namespaces.
            let (mut ask, mut answer) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
            std::io::Write::write_all(&mut ask, b"?").unwrap();
            std::io::Read::read_exact(&mut answer, &mut [0]).unwrap();
            let pidfd = pidfd::open(child.id()).unwrap().unwrap();
            let stamp = ProcessStamp::of(child.id()).unwrap().unwrap();
            let namespace = Process { stamp, pidfd, status: None }.network_namespace();
            drop(ask);
            child.wait().unwrap();
            match namespace {
                Ok(_) => assert!(!refused, "{arguments:?}"),
                Err(error) => {
                    assert!(refused && error.contains("another user namespace"), "{error}");
                }
            }
        }
    }
}

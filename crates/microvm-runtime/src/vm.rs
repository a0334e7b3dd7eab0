//! A running VM: [`Vm`].

use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use jail_cgroup::{Leaf, Stats};
use jail_cmd::JailId;
use jail_fs::Dir;

use crate::api::Api;
use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};
use crate::exit::Exit;
use crate::jail::Jail;
use crate::launch::Started;
use crate::prepare::Prepared;
use crate::process::{ExitStatus, Expected, Inspection, Process, Running, StreamReader, Streams};
use crate::record::Record;
use jail_cmd::in_jail;

/// A running VM: its process, its API, its console and its control group.
///
/// Its pidfd is given as a descriptor ([`AsFd`]): readable once the VMM has ended, for any event loop.
///
/// # Caveats
/// Dropping it leaves the VM running, as dropping a [`std::process::Child`] does; [`Jailer::adopt`](crate::Jailer::adopt)
/// takes it up again, with its console and its log.
///
/// Nobody else can start, adopt or tear down this VM until its end was seen ([`wait`](Self::wait),
/// [`shutdown`](Self::shutdown), [`kill`](Self::kill)), or this is dropped.
#[derive(Debug)]
pub struct Vm {
    /// Until its end was seen.
    lock: Option<Jail>,
    /// Since then.
    exit: Option<Exit>,
    pub(crate) record: Record,
    pub(crate) leaf: Option<Leaf>,
    pub(crate) root: Dir,
    pub(crate) process: Process,
    streams: Streams,
    ready_after: Option<Duration>,
}

impl Vm {
    pub(crate) fn new(prepared: Prepared, started: Started) -> Self {
        let Started { root, running: Running { process, streams }, ready_after } = started;
        Self {
            lock: Some(prepared.jail),
            exit: None,
            record: prepared.record,
            leaf: prepared.leaf,
            root,
            process,
            streams,
            ready_after: Some(ready_after),
        }
    }

    pub(crate) fn adopted(
        jail: Jail,
        record: Record,
        leaf: Option<Leaf>,
        root: Dir,
        Running { process, streams }: Running,
    ) -> Self {
        Self {
            lock: Some(jail),
            exit: None,
            record,
            leaf,
            root,
            process,
            streams,
            ready_after: None,
        }
    }

    /// The VM's id, as it was given.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        &self.record.vm_id
    }

    /// The jail's id.
    #[must_use]
    pub fn jail_id(&self) -> &JailId {
        &self.record.jail_id
    }

    /// The VMM's pid on the host.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// The uid the VMM runs as.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.record.uid
    }

    /// How long it took from the spawn until the VM was ready; `None` of an adopted VM.
    #[must_use]
    pub fn ready_after(&self) -> Option<Duration> {
        self.ready_after
    }

    /// Returns the guest's console: the bytes of its serial port and nothing else. `None` if the spec's
    /// [`Console`](crate::Console) goes to a file or nowhere.
    ///
    /// Of an adopted VM it begins with what the FIFO held (at most 64 KiB) when the VM was adopted.
    #[must_use]
    pub fn console(&self) -> Option<&StreamReader> {
        self.streams.console.as_ref()
    }

    /// Returns the VM's log, line by line: Firecracker's own log, and what the jailer and Firecracker print on stderr.
    ///
    /// Firecracker opens its log by name in the jail. A VM that puts something else in the place of that FIFO has, once
    /// adopted, a log of stderr alone.
    #[must_use]
    pub fn log(&self) -> &StreamReader {
        &self.streams.log
    }

    /// Firecracker's API, over a socket that was verified to be this VMM's (`openat2(2)`, `SO_PEERCRED`).
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) of a VM started without an API; [`Identity`](ErrorKind::Identity) where the
    /// socket is a link, is not the uid's, or is answered by another process.
    pub fn api(&self) -> VmRuntimeResult<Api> {
        Ok(self.connect()?)
    }

    pub(crate) fn connect(&self) -> Result<Api> {
        if !self.record.spec.api {
            return Err(Failure::new(ErrorKind::Unsupported, "connect to the API")
                .because("the VM was started without one")
                .hinted("leave `no_api` out of its spec"));
        }
        Api::connect(&self.root, in_jail::API_SOCKET, self.record.uid, self.process.pid())
    }

    /// What the kernel says of the VMM (`/proc/<pid>`): ids, root, namespaces, seccomp mode, descriptors, control groups.
    ///
    /// # Errors
    /// [`Identity`](ErrorKind::Identity) where the process has ended.
    pub fn inspect(&self) -> VmRuntimeResult<Inspection> {
        Ok(self.process.inspect(self.record.root)?)
    }

    /// What the VM uses, as its control group accounts for it.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the host has no hierarchy for a leaf of its own.
    pub fn stats(&self) -> VmRuntimeResult<Stats> {
        let leaf = self.leaf("read the VM's statistics")?;
        leaf.stats().map_err(|error| Failure::cgroup("read the VM's statistics", error).into())
    }

    /// The VM's control group.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the host has no hierarchy for a leaf of its own.
    pub fn cgroup(&self) -> VmRuntimeResult<&Leaf> {
        Ok(self.leaf("find the VM's control group")?)
    }

    fn leaf(&self, operation: &str) -> Result<&Leaf> {
        self.leaf.as_ref().ok_or_else(|| {
            Failure::new(ErrorKind::Unsupported, operation)
                .because("the VM has no control group of its own")
        })
    }

    /// Waits until the VMM has ended (`waitid(2)`, or its pidfd where it is not our child).
    ///
    /// # Errors
    /// Only where the kernel refuses to wait.
    pub fn wait(&mut self) -> VmRuntimeResult<Exit> {
        // Without a deadline there is a status.
        let status = self.process.wait(None)?.unwrap_or(ExitStatus::Unknown);
        Ok(self.exit(status)?)
    }

    /// Waits until the VMM has ended or `timeout` has passed; `None` then.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&mut self, timeout: Duration) -> VmRuntimeResult<Option<Exit>> {
        Ok(self.ended_by(Instant::now() + timeout)?)
    }

    pub(crate) fn ended_by(&mut self, deadline: Instant) -> Result<Option<Exit>> {
        let ended = self.process.wait(Some(deadline))?;
        ended.map(|status| self.exit(status)).transpose()
    }

    fn exit(&mut self, status: ExitStatus) -> Result<Exit> {
        if let Some(exit) = self.exit {
            return Ok(exit);
        }
        let oom_kills = self.leaf.as_ref().map_or(Ok(0), Leaf::oom_kills);
        // After the look: whoever takes the jail now may remove its control group.
        self.lock = None;
        let oom_killed =
            oom_kills.map_err(|error| Failure::cgroup("read the OOM kills", error))? > 0;
        Ok(*self.exit.insert(Exit { status, oom_killed }))
    }
}

impl AsFd for Vm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// What a VM is expected to be, by its record.
pub(crate) fn expected(record: &Record) -> Expected {
    Expected {
        uid: record.uid,
        gid: record.gid,
        root: record.root,
        exec_name: record.exec_name.as_str().to_owned(),
        boots: record.spec.boot.is_some(),
    }
}

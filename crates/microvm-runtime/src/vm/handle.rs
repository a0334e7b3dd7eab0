//! A running VM: [`Vm`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jail_cgroup::{Leaf, Stats};
use jail_cmd::JailId;
use jail_fs::{Dir, TrustedDir};
use serde_json::Value;

use crate::api::Api;
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::Jail;
use crate::jail::liveness::{self, Survey};
use crate::jail::prepare::{Prepared, open_root};
use crate::jail::record::Record;
use crate::vm::exit::Exit;
use crate::vmm::{Expected, Inspection, Process, Running, StreamReader, Streams};
use jail_cmd::in_jail;

/// A running VM: its process, its API, its console and its control group.
///
/// Its pidfd is given as a descriptor ([`AsFd`]): readable once the VMM has ended, for any event loop.
///
/// All verbs take `&self`: one thread can [wait](Self::wait) while another [shuts down](Self::shutdown), and both get
/// the same [`Exit`].
///
/// # Caveats
/// Dropping it leaves the VM running, as dropping a [`std::process::Child`] does;
/// [`Jailer::adopt`](crate::Jailer::adopt) takes it up again, with its console and its log.
///
/// Nobody else can start, adopt or tear down this VM until its end was seen ([`wait`](Self::wait),
/// [`shutdown`](Self::shutdown), [`kill`](Self::kill)), or this is dropped.
#[derive(Debug)]
pub struct Vm {
    life: Mutex<Life>,
    pub(crate) record: Record,
    /// The jail's directory, for a new open if the lock is no longer held.
    jail: PathBuf,
    pub(crate) process: Process,
    streams: Streams,
    /// Held while a snapshot is taken.
    pub(crate) taking: Mutex<()>,
    ready_after: Option<Duration>,
}

/// The state of a VM: running, or ended.
#[derive(Debug)]
pub(crate) enum Life {
    /// The end of the VM was not observed. The jail's lock is held.
    Unseen { lock: Jail },
    /// The end of the VM was observed, and the lock released: another launcher may own the jail and the control group.
    Seen(Exit),
}

/// The time limit for the VMM to accept a connection to the API.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A VM that was started and proven.
pub(crate) struct Started {
    pub(crate) running: Running,
    pub(crate) ready_after: Duration,
}

impl Vm {
    pub(crate) fn new(prepared: Prepared, started: Started) -> Self {
        let Started { running: Running { process, streams }, ready_after } = started;
        Self {
            jail: prepared.jail.path().to_owned(),
            life: Mutex::new(Life::Unseen { lock: prepared.jail }),
            record: prepared.record,
            process,
            streams,
            taking: Mutex::default(),
            ready_after: Some(ready_after),
        }
    }

    pub(crate) fn adopted(
        jail: Jail,
        record: Record,
        Running { process, streams }: Running,
    ) -> Self {
        Self {
            jail: jail.path().to_owned(),
            life: Mutex::new(Life::Unseen { lock: jail }),
            record,
            process,
            streams,
            taking: Mutex::default(),
            ready_after: None,
        }
    }

    /// Returns the VM's id, unchanged.
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

    /// Returns the time from the spawn until the VM was ready; `None` for an adopted VM.
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
    /// [`Unsupported`](ErrorKind::Unsupported) of a VM started without an API; [`Identity`](ErrorKind::Identity) where
    /// the socket is a link, is not the uid's, or is answered by another process; [`Timeout`](ErrorKind::Timeout) if
    /// the VMM accepts no connection within 10 s.
    pub fn api(&self) -> VmRuntimeResult<Api> {
        let connected = self.connect(Deadline::after(CONNECT_TIMEOUT));
        Ok(connected.map_err(|failure| host_check::explain(Verb::Api, failure))?)
    }

    /// Returns the API as [`api`](Self::api), but the VMM has `timeout` to accept the connection, and as long for each
    /// request. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    /// As [`api`](Self::api).
    pub fn api_within(&self, timeout: Duration) -> VmRuntimeResult<Api> {
        let connected = self.connect(Deadline::after(timeout));
        let api = connected.map_err(|failure| host_check::explain(Verb::Api, failure))?;
        Ok(api.timeout(timeout))
    }

    /// Sends one request to the API, all within `timeout`.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
        timeout: Duration,
    ) -> Result<()> {
        self.connect_within(timeout)?.send(method, path, body).map(drop)
    }

    /// Connects to the API; connecting and the requests end after `timeout`.
    pub(crate) fn connect_within(&self, timeout: Duration) -> Result<Api> {
        let deadline = Deadline::after(timeout);
        let api = self.connect(deadline);
        let api = api.map_err(|failure| host_check::explain(Verb::Api, failure))?;
        Ok(api.until(deadline))
    }

    /// Refuses a VM whose VMM has ended, seen or not.
    pub(crate) fn refuse_ended(&self, operation: &str) -> Result<()> {
        if self.process.ends_by(Deadline::now())? { Err(ended(operation)) } else { Ok(()) }
    }

    pub(crate) fn connect(&self, deadline: Deadline) -> Result<Api> {
        if !self.record.spec.api {
            return Err(Error::new(ErrorKind::Unsupported, "connect to the API")
                .because("the VM was started without one")
                .hinted("Leave `no_api` out of the spec."));
        }
        let pid = self.process.pid();
        Api::connect(&self.root()?, in_jail::API_SOCKET, self.record.uid, pid, deadline)
    }

    /// Opens the jail's root. A VM that runs keeps it closed: each has five descriptors, and hosts have many VMs.
    pub(crate) fn root(&self) -> Result<Dir> {
        if let Life::Unseen { lock } = &*self.life() {
            return open_root(lock.dir(), self.record.root);
        }
        let dir = TrustedDir::open(&self.jail)
            .map_err(|error| Error::files("open the jail's directory", error))?;
        open_root(&dir, self.record.root)
    }

    /// Opens the VM's control group; `None` if the VM has none, or somebody removed it.
    pub(crate) fn open_leaf(&self) -> Result<Option<Leaf>> {
        Ok(liveness::leaves(&self.record, &Survey::default())?.pop())
    }

    /// Reads the kernel's view of the VMM (`/proc/<pid>`): ids, root, namespaces, seccomp mode, descriptors, control
    /// groups.
    ///
    /// # Errors
    /// [`Identity`](ErrorKind::Identity) if the process has ended.
    pub fn inspect(&self) -> VmRuntimeResult<Inspection> {
        let inspection = self.process.inspect(self.record.root);
        Ok(inspection.map_err(|failure| host_check::explain(Verb::Inspect, failure))?)
    }

    /// Opens the VMM's network namespace (`/proc/<pid>/ns/net`): for `setns(2)`, or to move an interface into it
    /// (`IFLA_NET_NS_FD`). A namespace of [`Network::Isolated`](crate::Network::Isolated) lives on while the descriptor is
    /// open.
    ///
    /// # Errors
    /// [`Identity`](ErrorKind::Identity) if the process has ended, or the namespace belongs to another user namespace than
    /// the launcher's.
    pub fn network_namespace(&self) -> VmRuntimeResult<OwnedFd> {
        let namespace = self.process.network_namespace();
        Ok(namespace.map_err(|failure| host_check::explain(Verb::Inspect, failure))?)
    }

    /// Reads the VM's resource usage from the control group.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the host has no hierarchy for a leaf.
    pub fn stats(&self) -> VmRuntimeResult<Stats> {
        let leaf = self.leaf("read the VM's statistics")?;
        leaf.stats().map_err(|error| Error::cgroup("read the VM's statistics", error).into())
    }

    /// Opens the VM's control group.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the host has no hierarchy for a leaf.
    pub fn cgroup(&self) -> VmRuntimeResult<Leaf> {
        Ok(self.leaf("find the VM's control group")?)
    }

    pub(crate) fn leaf(&self, operation: &str) -> Result<Leaf> {
        let leaf = self.open_leaf().and_then(|leaf| {
            leaf.ok_or_else(|| {
                Error::new(ErrorKind::Unsupported, operation)
                    .because("the VM has no control group of its own")
            })
        });
        leaf.map_err(|failure| host_check::explain(Verb::Stats, failure))
    }

    /// Waits until the VMM has ended (`poll(2)` on the pidfd, then `waitid(2)`).
    ///
    /// Any number of threads can wait; each gets the same [`Exit`].
    ///
    /// # Errors
    /// Only if the kernel refuses to wait.
    pub fn wait(&self) -> VmRuntimeResult<Exit> {
        loop {
            if let Some(exit) = self.ended_by(Deadline::NEVER)? {
                return Ok(exit);
            }
        }
    }

    /// Waits until the VMM has ended or `timeout` has passed, and returns `None` then. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    /// As [`wait`](Self::wait).
    pub fn wait_timeout(&self, timeout: Duration) -> VmRuntimeResult<Option<Exit>> {
        Ok(self.ended_by(Deadline::after(timeout))?)
    }

    pub(crate) fn ended_by(&self, deadline: Deadline) -> Result<Option<Exit>> {
        if !self.process.ends_by(deadline)? {
            return Ok(None);
        }
        let mut life = self.life();
        if let Life::Seen(exit) = *life {
            return Ok(Some(exit));
        }
        let status = self.process.end()?;
        // Before the lock goes: the next owner of the jail may remove its control group. A leaf that somebody removed
        // has no counter to read, which must not hide the status.
        let oom_kills = self.open_leaf().ok().flatten().and_then(|leaf| leaf.oom_kills().ok());
        let oom_killed = oom_kills.map(|kills| kills > 0);
        let exit = Exit { status, oom_killed };
        *life = Life::Seen(exit);
        Ok(Some(exit))
    }

    /// The state of the VM. The jail's lock is not given up while the guard is held.
    pub(crate) fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Vm {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }
}

/// Refuses a VM whose end was seen.
pub(crate) fn running(life: &Life, operation: &str) -> Result<()> {
    match life {
        Life::Unseen { .. } => Ok(()),
        Life::Seen(_) => Err(ended(operation)),
    }
}

fn ended(operation: &str) -> Error {
    Error::new(ErrorKind::Identity, operation)
        .because("the VM has ended")
        .hinted("Launch the VM anew.")
}

/// Returns the expected properties of a VM, from the record.
pub(crate) fn expected(record: &Record) -> Expected {
    Expected {
        uid: record.uid,
        gid: record.gid,
        root: record.root,
        exec_name: record.exec_name.as_str().to_owned(),
        boots: record.spec.boot.is_some(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_share_a_vm() {
        fn shared<T: Send + Sync>() {}
        shared::<Vm>();
    }
}

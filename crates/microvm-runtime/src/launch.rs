//! Starting a prepared jail: spawn the jailer, wait until the VM is ready, prove that it is the one.

use std::time::{Duration, Instant};

use jail_cgroup::Leaf;

use jail_fs::Dir;

use crate::api::Api;
use crate::deadline::{Deadline, EXIT_TIMEOUT};
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::liveness::Survey;
use crate::jail::prepare::Prepared;
use crate::jail::remove;
use crate::plan::host_file::open_network_namespace;
use crate::spec::machine::{Boot, ConfigRequest};
use crate::spec::{JailSpec, Network};
use crate::sys::{NetworkNamespace, NewTap};
use crate::trace;
use crate::vm::{Started, Vm, expected};
use crate::vmm::{self, Expected, Process, Running, Search, Spawn};
use jail_cmd::in_jail;

impl Prepared {
    /// Starts the jailer and waits until the VM is ready.
    ///
    /// Ready means that the API answered `GET /`; without an API, that Firecracker runs. Either way its uid, gid,
    /// root, executable and control group were read back from the kernel.
    ///
    /// # Errors
    /// [`EarlyDeath`](ErrorKind::EarlyDeath) with the exit status, the jailer's message and a hint if the VMM exits
    /// before the VM is ready, [`Timeout`](ErrorKind::Timeout) if the VM is not ready in time,
    /// [`Identity`](ErrorKind::Identity) and [`Cgroup`](ErrorKind::Cgroup) if the kernel reports another state than
    /// requested. On an error, the VM is killed and the jail removed.
    ///
    /// # Privileges
    /// Root.
    pub fn launch(self) -> VmRuntimeResult<Vm> {
        let vm_id = self.record.vm_id.clone();
        Ok(trace::verb("launch", &vm_id, || launch(self))?)
    }

    /// Starts the jailer and loads the spec's snapshot as [`launch`](Self::launch) does, but calls `before` with the VM
    /// while the guest is paused, and resumes the guest after that: to attach a network, or to give a clone an identity.
    ///
    /// # Errors
    /// As [`launch`](Self::launch), [`InvalidInput`](ErrorKind::InvalidInput) for a spec without a snapshot, and the errors
    /// of `before`. On an error, the VM is killed and the jail removed.
    ///
    /// # Privileges
    /// Root.
    pub fn launch_with(
        mut self,
        before: impl FnOnce(&Vm) -> VmRuntimeResult<()>,
    ) -> VmRuntimeResult<Vm> {
        let Some(restore) = self.plan.spec.restore.clone() else {
            let because = "its spec has no snapshot, so that the guest is never paused";
            return Err(Error::invalid("start the VM paused", because)
                .hinted("Make the spec with `JailSpec::restored_from`, or call `launch`.")
                .into());
        };
        self.plan.requests = vec![ConfigRequest::load(restore.request(false))];
        let (base, id) = (self.base.clone(), self.record.jail_id.clone());
        let vm = self.launch()?;
        let done = before(&vm).and_then(|()| if restore.paused { Ok(()) } else { vm.resume() });
        let Err(failure) = done else { return Ok(vm) };
        let killed = vm.kill();
        drop(vm);
        let failure = Error::from(failure).and_cleanup(killed.map_err(Error::from));
        Err(failure.and_cleanup(remove::remove_by_id(&base, &id)).into())
    }
}

fn launch(mut prepared: Prepared) -> Result<Vm> {
    match start(&mut prepared) {
        Ok(started) => Ok(Vm::new(prepared, started)),
        Err(failure) => {
            let failure = match &prepared.leaf {
                Some(leaf) => blame_limits(leaf, failure),
                None => failure,
            };
            // What this cannot remove, a later removal or sweep does.
            let failure = vmm::explain_limits(failure);
            let Prepared { base, exec_dir, plan, jail, .. } = prepared;
            let exec_name = plan.layout.exec_name().as_str();
            let survey = Survey::default();
            Err(failure
                .and_cleanup(remove::remove_jail(&base, &exec_dir, exec_name, jail, &survey)))
        }
    }
}

/// Says so if a limit was hit: that explains an end better than its status does.
fn blame_limits(leaf: &Leaf, failure: Error) -> Error {
    if !matches!(failure.kind(), ErrorKind::EarlyDeath | ErrorKind::Timeout | ErrorKind::Spawn) {
        return failure;
    }
    let Ok(stats) = leaf.stats() else { return failure };
    let unexplained =
        failure.hint().is_none() || matches!(failure.kind(), ErrorKind::Timeout | ErrorKind::Spawn);
    let events = stats.memory_events;
    if events.is_some_and(|events| events.oom_kill > 0 || (events.max > 0 && unexplained)) {
        return failure.hinted(
            "The VM hit its memory limit: raise `Limits::memory_max` above what the guest and Firecracker need.",
        );
    }
    if stats.pids_denied.is_some_and(|denied| denied > 0) && unexplained {
        return failure.hinted("The VM hit its limit of tasks: raise `Limits::pids_max`.");
    }
    failure
}

fn start(prepared: &mut Prepared) -> Result<Started> {
    host_check::before(Verb::Launch)?;
    let (uid, gid) = prepared.user()?;
    let argv = prepared.plan.jailer_args(uid, gid)?.to_argv();
    let root = prepared.root()?;
    prepared.base.verify_path().map_err(|error| Error::files("check the chroot base", error))?;
    let jailer = prepared
        .plan
        .jailer
        .clone()
        .ok_or_else(|| Error::invalid("start the VM", "its plan names no jailer"))?;
    jailer.program.verify("jailer")?;
    refuse_used_uid(prepared)?;
    let mut starting = prepared.record.starting(prepared.jail.dir())?;

    let (begun, deadline) = (Instant::now(), Deadline::after(prepared.plan.spec.ready_within));
    let Prepared { plan, jail, record, leaf, .. } = prepared;
    let leaf = leaf.as_ref();
    let spawn_into = leaf
        .map(Leaf::spawn_into)
        .transpose()
        .map_err(|error| Error::cgroup("have the jailer born in the VM's control group", error))?;
    refuse_frozen(leaf)?;
    let spawn = Spawn {
        jailer_bin: jailer.program.path().as_path(),
        argv,
        pid_namespace: plan.spec.pid_namespace,
        network: network_namespace(&plan.spec, record.uid)?,
        daemonize: plan.spec.daemonize,
        spawn_into,
        jail: jail.dir().dir(),
        console: &plan.spec.console,
    };
    let members = || match leaf {
        Some(leaf) => {
            leaf.members().map_err(|error| Error::cgroup("read the control group's members", error))
        }
        None => Ok(Vec::new()),
    };
    let expected = Expected { boots: plan.boots_from_file(), ..expected(record) };
    let search = Search { root: &root, expected: &expected, members: &members };
    let socket = plan.spec.api.then_some(in_jail::API_SOCKET);
    let mut proven = |process: &mut Process| {
        leaf.map_or(Ok(()), |leaf| confirm_membership(leaf, process))?;
        record.started(jail.dir(), &mut starting, process.stamp().clone())
    };
    let running = vmm::start(spawn, search, socket, &mut proven, deadline)?;
    if !plan.requests.is_empty() {
        configure(&plan.requests, &root, record.uid, &running, deadline)?;
    }
    Ok(Started { running, ready_after: begun.elapsed() })
}

/// A leased uid may have come into use since the lease: by a VM of another base, or by a process of the host. Two VMs of one
/// uid could stop and trace each other. The process of an earlier VM has its uid until the process is reaped.
fn refuse_used_uid(prepared: &Prepared) -> Result<()> {
    let uid = prepared.record.uid;
    let deadline = Deadline::after(EXIT_TIMEOUT);
    while prepared.record.uid_leased && vmm::uid_is_in_use(uid)? {
        if deadline.has_passed() {
            return Err(Error::new(ErrorKind::Busy, format!("start the VM as uid {uid}"))
                .because("a process that is not the VM's has the leased uid")
                .hinted(
                    "Lease from ranges that no other chroot base and no user of the host has.",
                ));
        }
        std::thread::sleep(RECHECK);
    }
    Ok(())
}

/// The pause between two looks for processes with the VM's uid.
const RECHECK: Duration = Duration::from_millis(5);

/// Makes the requests that start the machine: of a configuration that no file can contain, or of a restore. A VMM that
/// refuses is killed.
fn configure(
    requests: &[ConfigRequest],
    root: &Dir,
    uid: u32,
    running: &Running,
    deadline: Deadline,
) -> Result<()> {
    let process = &running.process;
    let configured = Api::connect(root, in_jail::API_SOCKET, uid, process.pid(), deadline)
        .and_then(|api| {
            let api = api.until(deadline);
            requests.iter().try_for_each(|request| {
                api.send("PUT", &request.path, Some(&request.body)).map(drop)
            })
        });
    let Err(failure) = configured else { return Ok(()) };
    Err(failure.and_cleanup(process.kill()))
}

/// The VM's network namespace, by descriptor: a path may have come to mean another file since the plan was made.
fn network_namespace(spec: &JailSpec, owner: u32) -> Result<NetworkNamespace> {
    let taps = spec.boot.iter().flat_map(Boot::new_taps);
    let taps = taps.map(|name| NewTap { name: name.to_owned(), owner });
    Ok(match &spec.network {
        Network::Isolated => NetworkNamespace::New(taps.collect()),
        Network::Namespace(path) => NetworkNamespace::Joined(open_network_namespace(path)?),
        Network::Host => NetworkNamespace::Parents,
    })
}

/// A process that is born in a frozen group never runs.
fn refuse_frozen(leaf: Option<&Leaf>) -> Result<()> {
    let operation = "start the jailer in the VM's control group";
    let Some(leaf) = leaf else { return Ok(()) };
    match leaf.frozen_by().map_err(|error| Error::cgroup(operation, error))? {
        None => Ok(()),
        Some(frozen) => Err(Error::new(ErrorKind::Cgroup, operation)
            .path(frozen)
            .because("the group is frozen")
            .hinted(
                "Thaw the group (`cgroup.freeze`, `freezer.state`), or choose another parent.",
            )),
    }
}

/// Checks that the VMM is in the leaf in each hierarchy, as the kernel reports.
fn confirm_membership(leaf: &Leaf, process: &mut Process) -> Result<()> {
    let operation = "read the VM's control group back";
    let pid = process.pid();
    let contains = leaf.contains(pid);
    if matches!(contains, Ok(true)) {
        return Ok(());
    }
    // The kernel removes an exiting VMM from the group shortly before the pidfd reports the exit.
    if process.wait(Deadline::after(EXIT_TIMEOUT))?.is_some() {
        return Ok(());
    }
    contains.map_err(|error| Error::cgroup(operation, error))?;
    Err(Error::new(ErrorKind::Cgroup, operation)
        .because(format!("process {pid} is not in it"))
        .hinted("The VMM was started in the group: check whether another program of this host moves processes."))
}

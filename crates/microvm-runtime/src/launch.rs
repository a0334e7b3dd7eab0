//! Starting a prepared jail: spawn the jailer, wait until the VM is ready, prove that it is the one.

use std::time::Instant;

use jail_fs::Dir;

use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};
use crate::jail::open_leaf;
use crate::plan::in_jail;
use crate::prepare::Prepared;
use crate::process::{Expected, Ready, Spawn, Spawned};
use crate::record::Progress;
use crate::teardown;
use crate::vm::Vm;

impl Prepared {
    /// Starts the jailer and waits until the VM is ready.
    ///
    /// Ready means that the API answered `GET /`; without an API, that Firecracker runs. Either way its uid, gid,
    /// root, executable and control group were read back from the kernel.
    ///
    /// # Errors
    /// [`EarlyDeath`](ErrorKind::EarlyDeath) with the exit status, the jailer's message and a hint where it ended
    /// before it was ready, [`Timeout`](ErrorKind::Timeout) where it was not ready in time,
    /// [`Identity`](ErrorKind::Identity) and [`Cgroup`](ErrorKind::Cgroup) where the kernel says something else than
    /// was asked for. The VM is then killed and its jail removed.
    ///
    /// # Privileges
    /// Root.
    pub fn launch(self) -> VmRuntimeResult<Vm> {
        Ok(launch(self)?)
    }
}

fn launch(mut prepared: Prepared) -> Result<Vm> {
    match start(&mut prepared) {
        Ok(started) => Ok(Vm::new(prepared, started)),
        Err(failure) => {
            // The failure to tell is the first one; what this cannot remove, a later teardown or sweep does.
            let _ = teardown::remove(&prepared.base, prepared.jail);
            Err(failure)
        }
    }
}

/// A VM that was started and proven.
pub(crate) struct Started {
    pub(crate) root: Dir,
    pub(crate) spawned: Spawned,
    pub(crate) ready: Ready,
    pub(crate) ready_after: std::time::Duration,
}

fn start(prepared: &mut Prepared) -> Result<Started> {
    let plan = &prepared.plan;
    let root = prepared.root()?;
    // What a jailer started by hand may have left would be fatal, or shadow the new one.
    prepared.base.verify_path().map_err(|error| Failure::files("check the chroot base", error))?;
    let (uid, gid) = prepared.user()?;
    let argv = plan.jailer_args(uid, gid)?.to_argv();
    prepared.record.progress = Progress::Starting;
    prepared.jail.write(&prepared.record)?;

    let begun = Instant::now();
    let deadline = begun + plan.spec.ready_within;
    let expected = Expected {
        uid: uid.get(),
        gid: gid.get(),
        root: prepared.record.root,
        exec_name: plan.layout.exec_name().as_str().to_owned(),
    };
    let spawn = Spawn {
        jailer_bin: plan.jailer_bin.clone(),
        argv,
        pid_namespace: plan.spec.pid_namespace,
        daemonize: plan.spec.daemonize,
        console: plan.spec.console.clone(),
    };
    let leaf = &prepared.leaf;
    let members = || match leaf {
        Some(leaf) => leaf.members().map_err(|error| Failure::cgroup("read the control group's members", error)),
        None => Ok(Vec::new()),
    };
    let socket = plan.spec.api.then_some(in_jail::API_SOCKET);
    let (spawned, ready) = crate::process::start(spawn, &root, &expected, socket, &members, deadline)?;
    let ready_after = begun.elapsed();

    if let Some(leaf) = &prepared.leaf
        && !leaf.contains(ready.stamp.pid()).map_err(|error| Failure::cgroup("read the VM's control group back", error))?
    {
        return Err(Failure::new(ErrorKind::Cgroup, "read the VM's control group back")
            .because(format!("process {} is not in it", ready.stamp.pid()))
            .hinted("the jailer did not join it: does its release join `--parent-cgroup`?"));
    }
    prepared.record.progress = Progress::Started(ready.stamp.clone());
    prepared.jail.write(&prepared.record)?;
    debug_assert!(prepared.leaf.is_none() || open_leaf(&prepared.record).is_ok());
    Ok(Started { root, spawned, ready, ready_after })
}

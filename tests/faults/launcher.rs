//! The launcher under test: takes a VM from plan to removal, and clears away the remains of a killed launcher.

use std::cell::RefCell;
use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use microvm_runtime::{
    CopyOptions, Drive, ErrorKind, InstanceState, JailSpec, JailState, Jailer, Limits, Restore,
    Snapshot, SnapshotOptions, Vm, VmRuntimeResult,
};

use crate::messages::{ErrorReport, Line, Many, Order, Role};
use crate::tracer::MARK;

/// The time that the guest has to react to Ctrl+Alt+Del.
const GRACE: Duration = Duration::from_secs(10);

/// Reads an order from stdin and carries the order out; returns true on success.
#[must_use]
pub fn serve() -> bool {
    let order = match order() {
        Ok(order) => order,
        Err(error) => {
            eprintln!("error: {error:#}");
            return false;
        }
    };
    let jailer = Jailer::new(order.config());
    let through = match order.role {
        Role::Life => life(&jailer, &order),
        Role::Recovery | Role::Restart => {
            recover(&jailer, &order).and_then(|()| life(&jailer, &order))
        }
        Role::Many(count) => many(&jailer, &order, count),
    };
    if through.is_some() {
        say(&Line::Over);
    }
    through.is_some()
}

fn order() -> Result<Order> {
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line).context("read the order")?;
    serde_json::from_str(&line).context("read the order")
}

/// Writes a line with one write(2), then raises the signal at which the tracer stops the launcher.
fn say(line: &Line) {
    let said = serde_json::to_vec(line).map_err(Into::into).and_then(|mut text| {
        text.push(b'\n');
        std::io::stdout().lock().write_all(&text)
    });
    if let Err(error) = said.and_then(|()| Ok(nix::sys::signal::raise(MARK)?)) {
        eprintln!("error: say {line:?}: {error}");
    }
}

/// Runs `attempt`; after a failure reports the error and tries once more.
fn phase<T>(name: &str, mut attempt: impl FnMut() -> VmRuntimeResult<T>) -> Option<T> {
    say(&Line::Begin(name.to_owned()));
    match attempt() {
        Ok(done) => return Some(done),
        Err(error) => say(&Line::Failed(ErrorReport::new(name, &error))),
    }
    match attempt() {
        Ok(done) => Some(done),
        Err(error) => {
            say(&Line::GaveUp(ErrorReport::new(name, &error)));
            None
        }
    }
}

fn life(jailer: &Jailer, order: &Order) -> Option<()> {
    let spec = &order.spec;
    let options = CopyOptions::new();
    let plan = phase("plan", || jailer.plan(spec))?;
    let prepared = RefCell::new(Some(phase("prepare", || plan.prepare(&options))?));
    let vm = phase("launch", || match prepared.take() {
        Some(prepared) => prepared.launch(),
        // What a failed launch had prepared is gone.
        None => plan.prepare(&options)?.launch(),
    })?;
    phase("look", || {
        vm.inspect()?;
        vm.api()?.instance_info()?;
        match vm.stats() {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            stats => drop(stats?),
        }
        jailer.list()?;
        jailer.sweep()
    })?;
    let snapshot = phase("take", || take(&vm, &order.snapshot))?;
    phase("change", || {
        match vm.update_limits(&Limits::new().pids_max(65)) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            changes => drop(changes?),
        }
        let mut files = plan.artifacts().iter().filter(|file| file.name.as_str() == "rootfs");
        files.try_for_each(|file| {
            let drive = Drive::private("rootfs", &file.source);
            vm.replace_drive(&drive, &options, GRACE).map(drop)
        })
    })?;
    let mut held = Some(vm);
    let vm = phase("adopt", || {
        drop(held.take());
        jailer.adopt(spec.vm_id())
    })?;
    phase("stop", || if order.kill { vm.kill() } else { vm.shutdown(GRACE) })?;
    let mut held = Some(vm);
    phase("teardown", || {
        drop(held.take());
        jailer.teardown(spec.vm_id())
    })?;
    let id = format!("{}-clone", spec.vm_id());
    let clone =
        JailSpec::restored_from(&snapshot, &id, spec.exec_file(), Restore::new().as_clone());
    let clone = clone.user(crate::scene::UIDS).ready_within(GRACE);
    let vm = phase("restore", || jailer.launch(&clone))?;
    phase("end of the clone", || {
        vm.kill()?;
        jailer.list()
    })?;
    drop(vm);
    phase("removal of the clone", || jailer.remove(&id))?;
    phase("removal of the snapshot", || match Snapshot::open(&order.snapshot) {
        Ok(snapshot) => snapshot.remove(),
        // Of a removal that failed half way, the rest is aside.
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    })
}

/// Takes a snapshot. After a failure the guest runs.
fn take(vm: &Vm, dir: &Path) -> VmRuntimeResult<Snapshot> {
    // A launcher that was killed may have finished it: the directory is complete or absent.
    if let Ok(old) = Snapshot::open(dir) {
        old.remove()?;
    }
    vm.snapshot(dir, &SnapshotOptions::new().within(GRACE)).inspect_err(|_| {
        let state = vm.api().and_then(|api| api.instance_info()).map(|info| info.state);
        assert!(matches!(state, Ok(InstanceState::Running)), "the guest is {state:?}");
    })
}

/// Makes jails and calls each verb that reads more than one jail, and a removal of each kind.
fn many(jailer: &Jailer, order: &Order, count: Many) -> Option<()> {
    let mut ids = Vec::new();
    phase("prepare", || {
        for n in 0..count.born_in_leaf {
            let id = format!("born-{n}");
            drop(jailer.plan(&renamed(&order.spec, &id))?.prepare(&CopyOptions::new())?);
            ids.push(id);
        }
        for n in 0..count.by_caller {
            let (id, file) = (format!("by-caller-{n}"), &order.jailer_bin);
            jailer.prepare(&id, file, file, &[])?;
            ids.push(id);
        }
        Ok(())
    })?;
    phase("list", || jailer.list())?;
    phase("sweep", || jailer.sweep())?;
    for id in &ids {
        phase(&format!("remove {id}"), || jailer.remove(id))?;
    }
    Some(())
}

fn renamed(spec: &JailSpec, id: &str) -> JailSpec {
    let renamed = serde_json::to_value(spec).and_then(|mut spec| {
        spec["vm_id"] = id.into();
        serde_json::from_value(spec)
    });
    renamed.unwrap_or_else(|error| panic!("rename the VM: {error}"))
}

/// Recovers as docs/operations.md describes for a crash: sweep, list, adopt or remove.
fn recover(jailer: &Jailer, order: &Order) -> Option<()> {
    phase("sweep what is left", || jailer.sweep())?;
    let listed = phase("list what is left", || jailer.list())?;
    for jail in listed.jails {
        let vm_id = jail.vm_id.as_deref().unwrap_or_else(|| order.spec.vm_id());
        if matches!(jail.state, JailState::Running { .. }) {
            let found = phase("adopt what is left", || match jailer.adopt(vm_id) {
                // It was ending when it was listed.
                Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
                found => found.map(Some),
            })?;
            if let Some(vm) = found {
                phase("stop what is left", || {
                    // A snapshot that was cut short leaves the guest paused.
                    let _ = vm.resume();
                    vm.shutdown(GRACE)
                })?;
            }
        }
        // The jail of a VM that is stopped may stay: its next life replaces it.
        if order.role == Role::Restart && !matches!(jail.state, JailState::Unrecorded { .. }) {
            continue;
        }
        phase("tear down what is left", || jailer.teardown(vm_id))?;
    }
    Some(())
}

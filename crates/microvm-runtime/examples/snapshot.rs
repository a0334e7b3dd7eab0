//! Boots a VM, takes a snapshot, and restores clones that share the snapshot's memory.
//!
//! `cargo run -p microvm-runtime --example snapshot -- /usr/bin/firecracker vmlinux /var/lib/snapshots/example 3`, as root.

use std::error::Error;
use std::path::Path;
use std::thread;

use microvm_runtime::{
    Boot, JailSpec, Jailer, JailerConfig, Restore, SnapshotOptions, User, Vm, VmRuntimeResult,
};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [firecracker, kernel, dir, count] = arguments.as_slice() else {
        return Err("usage: snapshot <firecracker> <kernel> <new directory> <count>".into());
    };
    let jailer = Jailer::new(JailerConfig::try_from_env()?);
    let spec = JailSpec::new("origin", firecracker)
        .kernel(kernel)
        .boot(Boot::new().vcpus(1).memory_mib(128));
    run(&jailer, &spec, dir.as_ref(), count.parse()?)
}

/// Takes a snapshot of a new VM into `dir`, restores `count` clones at once, and removes all of it.
pub(crate) fn run(
    jailer: &Jailer,
    spec: &JailSpec,
    dir: &Path,
    count: usize,
) -> Result<(), Box<dyn Error>> {
    let origin = jailer.launch(spec)?;
    // The guest is paused while Firecracker writes its memory and the drives are copied, and then runs on.
    let snapshot = origin.snapshot(dir, &SnapshotOptions::new())?;
    for file in snapshot.files() {
        println!("{} has {} bytes", file.path, file.size);
    }
    let restore = |n: usize| {
        let id = format!("clone_{n}");
        let clone = Restore::new().as_clone();
        let spec = JailSpec::restored_from(&snapshot, id, spec.exec_file(), clone)
            .user(User::Leased { first: 200_000, last: 299_999 });
        jailer.launch(&spec)
    };
    let clones: Vec<VmRuntimeResult<Vm>> = thread::scope(|scope| {
        let restores: Vec<_> = (0..count).map(|n| scope.spawn(move || restore(n))).collect();
        restores.into_iter().filter_map(|restore| restore.join().ok()).collect()
    });
    let mut vms = vec![origin];
    let mut failure = None;
    for clone in clones {
        match clone {
            Ok(vm) => vms.push(vm),
            Err(error) => failure = Some(error),
        }
    }
    for vm in &vms {
        let ready = vm.ready_after().unwrap_or_default();
        println!("{} was ready after {ready:?}, as process {}", vm.vm_id(), vm.pid());
    }
    for removed in jailer.remove_all(vms) {
        removed.exit?;
        removed.removal?;
    }
    snapshot.remove()?;
    failure.map_or(Ok(()), |error| Err(error.into()))
}

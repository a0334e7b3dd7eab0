//! Launches many VMs from several threads, each VM with a uid of its own, and removes all VMs at once.
//!
//! `cargo run -p microvm-runtime --example fleet -- /usr/bin/firecracker vmlinux 32`, as root.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use microvm_runtime::{JailSpec, Jailer, JailerConfig, User, Vm, VmRuntimeResult};

const THREADS: usize = 4;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [firecracker, kernel, count] = arguments.as_slice() else {
        return Err("usage: fleet <firecracker> <kernel> <count>".into());
    };
    let jailer = Jailer::new(JailerConfig::try_from_env()?);
    run(&jailer, firecracker.as_ref(), kernel.as_ref(), count.parse()?)
}

/// Launches `count` VMs, prints the uid of each VM, and removes all VMs.
pub(crate) fn run(
    jailer: &Jailer,
    firecracker: &Path,
    kernel: &Path,
    count: usize,
) -> Result<(), Box<dyn Error>> {
    let launch = |n: usize| {
        // The launch takes the first uid that no jail and no process of the host has.
        let user = User::Leased { first: 200_000, last: 299_999 };
        jailer
            .launch(&JailSpec::new(format!("fleet/vm_{n}"), firecracker).kernel(kernel).user(user))
    };
    let (vms, failures) = launch_all(count, &launch);
    for vm in &vms {
        println!("{} has uid {}, pid {}", vm.vm_id(), vm.uid(), vm.pid());
    }
    // All kills are sent before the first wait.
    for removed in jailer.remove_all(vms) {
        println!("{} {}", removed.vm_id, removed.exit?.status);
        removed.removal?;
    }
    failures.into_iter().try_for_each(|failure| Err(failure.into()))
}

/// Calls `launch` for each number below `count`, from all threads; a failed launch leaves nothing and stops no other.
fn launch_all(
    count: usize,
    launch: &(impl Fn(usize) -> VmRuntimeResult<Vm> + Sync),
) -> (Vec<Vm>, Vec<microvm_runtime::VmRuntimeError>) {
    let next = AtomicUsize::new(0);
    let numbers = || std::iter::from_fn(|| Some(next.fetch_add(1, Ordering::Relaxed)));
    let worker = || numbers().take_while(|n| *n < count).map(launch).collect::<Vec<_>>();
    let (mut vms, mut failures) = (Vec::new(), Vec::new());
    thread::scope(|scope| {
        let workers = [(); THREADS].map(|()| scope.spawn(worker));
        for result in workers.into_iter().filter_map(|worker| worker.join().ok()).flatten() {
            match result {
                Ok(vm) => vms.push(vm),
                Err(failure) => failures.push(failure),
            }
        }
    });
    (vms, failures)
}

//! Adopts the running VMs of a launcher that is gone, reads their consoles, and removes them.
//!
//! `cargo run -p microvm-runtime --example adopt`, as root: takes up every VM below `MICROVM_JAILER_CHROOT_BASE` that no
//! other launcher holds. Stopped jails and the remains of interrupted launches are removed too.

use std::error::Error;
use std::time::Duration;

use microvm_runtime::{JailState, Jailer, JailerConfig};

fn main() -> Result<(), Box<dyn Error>> {
    let adopted = run(&Jailer::new(JailerConfig::try_from_env()?))?;
    println!("{adopted} VMs adopted");
    Ok(())
}

/// Adopts and removes every VM, and returns the number of VMs.
pub(crate) fn run(jailer: &Jailer) -> Result<usize, Box<dyn Error>> {
    // Whatever a launcher was doing when it died: staging, launching, removing.
    let swept = jailer.sweep()?;
    println!("swept {} trees and {} jails", swept.trees.len(), swept.jails.jails.len());
    let mut adopted = 0;
    for jail in jailer.list()?.jails {
        match (jail.state, jail.vm_id) {
            (JailState::Running { pid }, Some(vm_id)) => {
                let vm = jailer.adopt(&vm_id)?;
                // The VM kept the pipe of the console while no launcher was alive.
                let console = vm.console().map(|console| console.text()).unwrap_or_default();
                println!("{vm_id} runs as process {pid}; console: {console:?}");
                println!("{vm_id} {}", vm.shutdown(Duration::from_secs(10))?.status);
                adopted += 1;
            }
            (state, _) => println!("{} {state:?}", jail.jail_id),
        }
        // By the jail's id, because the record of a damaged jail names no VM.
        let report = jailer.remove_jail(&jail.jail_id)?;
        println!("{} removed, {} entries", jail.jail_id, report.entries);
    }
    Ok(adopted)
}

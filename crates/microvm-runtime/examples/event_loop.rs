//! Asks several VMs to shut down, and waits for their ends in one thread, with poll(2) on the pidfds.
//!
//! `cargo run -p microvm-runtime --example event_loop -- /usr/bin/firecracker vmlinux 3`, as root. Any event loop works:
//! [`Vm`] is [`AsFd`](std::os::fd::AsFd), and the descriptor is readable once the VMM has exited.

use std::error::Error;
use std::time::Duration;

use microvm_runtime::{Action, Boot, JailSpec, Jailer, JailerConfig, Vm};
use rustix::event::{PollFd, PollFlags, poll};

/// The time limit for the first line of a guest, generous enough for a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [firecracker, kernel, count] = arguments.as_slice() else {
        return Err("usage: event_loop <firecracker> <kernel> <count>".into());
    };
    let spec = |n| {
        JailSpec::new(format!("loop/vm_{n}"), firecracker).kernel(kernel).boot(Boot::new().vcpus(1))
    };
    let specs: Vec<_> = (0..count.parse()?).map(|n: usize| spec(n)).collect();
    run(&Jailer::new(JailerConfig::try_from_env()?), &specs)
}

/// Launches the VMs, waits for the first line of each guest, asks each guest to shut down, and removes each VM as soon as
/// it ends.
pub(crate) fn run(jailer: &Jailer, specs: &[JailSpec]) -> Result<(), Box<dyn Error>> {
    let mut vms = specs.iter().map(|spec| jailer.launch(spec)).collect::<Result<Vec<_>, _>>()?;
    for vm in &vms {
        // A guest without a keyboard driver would not notice Ctrl+Alt+Del.
        vm.console().map(|console| console.wait_for_line(|_| true, PATIENCE));
        vm.api()?.action(Action::SendCtrlAltDel)?;
    }
    while !vms.is_empty() {
        // From the back: a removed VM moves only VMs behind it.
        for index in ended(&vms)?.into_iter().rev() {
            let vm = vms.remove(index);
            let exit =
                vm.wait_timeout(Duration::ZERO)?.ok_or("the pidfd was readable too early")?;
            println!("{} {}", vm.vm_id(), exit.status);
            jailer.remove(vm.vm_id())?;
        }
    }
    Ok(())
}

/// Waits until at least one VMM has exited, and returns the indices of all that have.
fn ended(vms: &[Vm]) -> Result<Vec<usize>, Box<dyn Error>> {
    let mut pidfds: Vec<_> = vms.iter().map(|vm| PollFd::new(vm, PollFlags::IN)).collect();
    poll(&mut pidfds, None)?;
    let ended = pidfds.iter().enumerate().filter(|(_, pidfd)| !pidfd.revents().is_empty());
    Ok(ended.map(|(index, _)| index).collect())
}

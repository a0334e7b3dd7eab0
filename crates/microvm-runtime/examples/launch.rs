//! Launches a VM with limits, prints the kernel's view of the VM, asks the guest to shut down, and removes the jail.
//!
//! `cargo run -p microvm-runtime --example launch -- /usr/bin/firecracker vmlinux rootfs.ext4`, as root. The jailer and
//! the directory of the jails come from `MICROVM_JAILER_BIN`, `MICROVM_JAILER_CHROOT_BASE`, … (`JailerConfig`).

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use microvm_runtime::{
    Boot, ByteSize, CopyOptions, Drive, JailSpec, Jailer, JailerConfig, Limits, RemoveReport, Vm,
};

/// The time limit of each wait, generous enough for a busy host.
const PATIENCE: Duration = Duration::from_secs(60);

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<_> = std::env::args_os().skip(1).map(PathBuf::from).collect();
    let [firecracker, kernel, rootfs] = arguments.as_slice() else {
        return Err("usage: launch <firecracker> <kernel> <rootfs>".into());
    };
    let jailer = Jailer::new(JailerConfig::try_from_env()?);
    let spec = JailSpec::new("demo/vm_1", firecracker)
        .kernel(kernel)
        .drive(Drive::private("rootfs", rootfs))
        .limits(Limits::new().memory_max(ByteSize::mib(256)).cpus(0.5).pids_max(64))
        .boot(Boot::new().vcpus(1).memory_mib(128).kernel_args("console=ttyS0 reboot=k panic=1"))
        .ready_within(PATIENCE);
    run(&jailer, &spec)
}

/// Runs the VM from plan to removal. The jail is removed even if a step fails.
pub(crate) fn run(jailer: &Jailer, spec: &JailSpec) -> Result<(), Box<dyn Error>> {
    // A killed run may have left the VM.
    print_removed("earlier run", &jailer.remove(spec.vm_id())?);
    let shown = show(jailer, spec);
    print_removed("removed", &jailer.remove(spec.vm_id())?);
    shown
}

fn show(jailer: &Jailer, spec: &JailSpec) -> Result<(), Box<dyn Error>> {
    let plan = jailer.plan(spec)?;
    println!("{plan}");
    let prepared = plan.prepare(&CopyOptions::default())?;
    for artifact in prepared.report().artifacts {
        let (name, bytes) = (artifact.name, artifact.bytes_copied);
        println!("staged        {name} by {:?}, {bytes} bytes copied", artifact.strategy);
    }
    let vm = prepared.launch()?;
    println!("pid           {}, ready after {:?}", vm.pid(), vm.ready_after().unwrap_or_default());
    let console = vm.console().ok_or("the console is written to a file")?;
    let line = console.wait_for_line(|line| !line.trim().is_empty(), PATIENCE);
    println!("guest         {}", line.ok_or_else(|| format!("silent; log: {}", vm.log().text()))?);
    print_kernels_view(&vm)?;
    // Ctrl+Alt+Del, and after the time limit SIGKILL.
    println!("exit          {}", vm.shutdown(PATIENCE)?.status);
    Ok(())
}

/// Prints `/proc/<pid>` and the files of the control group.
fn print_kernels_view(vm: &Vm) -> Result<(), Box<dyn Error>> {
    let seen = vm.inspect()?;
    let outside = seen.descriptors.iter().filter(|open| !open.inside_jail);
    let files = outside.map(|open| open.target.as_str());
    let files: Vec<_> = files.filter(|target| target.starts_with('/')).collect();
    println!("uids          {:?}, gids {:?}", seen.uids, seen.gids);
    println!("root          {}", if seen.root_is_jail { "the jail" } else { "NOT THE JAIL" });
    println!("pids          {:?}, one in each pid namespace", seen.ns_pids);
    println!("seccomp       {:?}, 2 is a filter", seen.seccomp);
    let open = seen.descriptors.len();
    println!("descriptors   {open}; files not on the jail's mount: {}", files.join(", "));
    for limit in vm.cgroup()?.effective()? {
        println!("limit         {} = {}", limit.path.display(), limit.value);
    }
    Ok(())
}

fn print_removed(label: &str, report: &RemoveReport) {
    for path in report.jails.iter().chain(&report.cgroups) {
        println!("{label:<13} {}", path.display());
    }
}

//! One id, several lives: restart, adoption, crashes, leftovers, two launchers.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use microvm_runtime::{Console, Drive, ErrorKind, JailState, PidNamespace};

use crate::host::{Host, assert_says_hello};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn restart_gets_fresh_inodes() {
    let mut host = Host::new("restart");
    let rootfs = host.scratch.file("rootfs.img", "golden");
    let spec = host.hello("again").drive(Drive::private("rootfs", &rootfs)).no_api();
    let drive = host.jailer().plan(&spec).unwrap().layout().root().join("rootfs");
    let mut inodes = Vec::new();
    for _ in 0..3 {
        let vm = host.jailer().launch(&spec).unwrap();
        assert_says_hello(&vm);
        assert!(vm.wait().unwrap().success());
        inodes.push(fs::File::open(&drive).unwrap());
        fs::write(&drive, "written by the guest").unwrap();
    }
    let seen = inodes
        .iter()
        .map(|file| file.metadata().unwrap().ino())
        .collect::<std::collections::HashSet<_>>();
    assert_eq!(seen.len(), 3, "a descriptor kept over a restart would reach the next life");
    assert_eq!(fs::read_to_string(&rootfs).unwrap(), "golden");
    drop(inodes);
    host.assert_clean();
}

/// Removes jails while the `Vm` values of the ended VMs still exist, as the README's example does.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn ended_vms_can_be_removed() {
    let mut host = Host::new("ended");
    let disk = host.scratch.file("disk.img", "kept");
    let one = host.idle("one").drive(Drive::persistent("data", &disk));
    let two = host.idle("two").drive(Drive::persistent("data", &disk));
    let vm = host.jailer().launch(&one).unwrap();
    assert_eq!(host.jailer().teardown("one").unwrap_err().kind(), ErrorKind::Busy);
    vm.shutdown(Duration::from_secs(5)).unwrap();
    host.jailer().teardown("one").unwrap();
    // The drive is free too.
    let other = host.jailer().launch(&two).unwrap();
    vm.kill().expect("it has ended, and stays so");
    other.kill().unwrap();
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn running_vm_is_not_restarted() {
    let mut host = Host::new("twice");
    let spec = host.idle("one");
    let mut vm = host.jailer().launch(&spec).unwrap();
    let pid = vm.pid();
    // The launcher that has it holds its lock.
    assert_eq!(host.jailer().launch(&spec).unwrap_err().kind(), ErrorKind::Busy);
    drop(vm);
    // Nobody holds it, and it runs.
    let error = host.jailer().launch(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Running, "{error}");
    assert!(error.to_string().contains(&pid.to_string()), "{error}");
    vm = host.jailer().adopt("one").unwrap();
    assert_eq!(vm.pid(), pid);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn adopted_vm_answers() {
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let mut host = Host::new("adopt");
        let spec = host.idle("orphan").pid_namespace(mode).console(Console::null());
        drop(host.jailer().launch(&spec).unwrap());
        let listed = host.jailer().list().unwrap().jails;
        assert!(
            matches!(listed.as_slice(), [one] if matches!(one.state, JailState::Running { .. })),
            "{listed:?}"
        );
        let vm = host.jailer().adopt("orphan").unwrap();
        assert_eq!(vm.api().unwrap().instance_info().unwrap().id, "orphan");
        assert!(!vm.kill().unwrap().success());
        drop(vm);
        let listed = host.jailer().list().unwrap().jails;
        assert!(
            matches!(listed.as_slice(), [one] if one.state == JailState::Stopped),
            "{listed:?}"
        );
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn teardown_kills_what_still_runs() {
    let mut host = Host::new("kill");
    let spec = host.idle("left");
    drop(host.jailer().launch(&spec).unwrap());
    let report = host.jailer().remove("left").unwrap();
    assert_eq!(report.killed, 1);
    assert_eq!(report.jails.len(), 1);
    assert!(report.entries > 0);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn failed_launch_leaves_nothing() {
    let mut host = Host::new("fail");
    let spec = host.hello("nothing").kernel(host.scratch.file("broken", "no kernel"));
    let error = host.jailer().launch(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::EarlyDeath, "{error}");
    assert_eq!(host.jailer().list().unwrap().jails, []);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn killed_launchers_are_swept() {
    let mut host = Host::new("sweep");
    let spec = host.hello("staged").no_api();
    let plan = host.jailer().plan(&spec).unwrap();
    let first = plan.prepare(&Default::default()).unwrap();
    let root = first.report().root;
    drop(first);
    let again = plan.prepare(&Default::default()).unwrap();
    assert_eq!(again.report().root, root, "the same plan was carried out twice");
    let vm = again.launch().unwrap();
    assert!(vm.wait().unwrap().success());
    drop(vm);
    assert!(host.jailer().sweep().unwrap().trees.is_empty());
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_plan_survives_serialisation() {
    let mut host = Host::new("json");
    let spec = host.hello("json").no_api();
    let plan = host.jailer().plan(&spec).unwrap();
    let json = serde_json::to_string(&plan).unwrap();
    let read: microvm_runtime::Plan = serde_json::from_str(&json).unwrap();
    assert_eq!(read, plan);
    let vm = read.prepare(&Default::default()).unwrap().launch().unwrap();
    assert!(vm.wait().unwrap().success());
    drop(vm);
    host.assert_clean();
}

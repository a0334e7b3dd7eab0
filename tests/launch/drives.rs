//! The drives of a whole VM: shared, private, persistent, and block devices.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use microvm_runtime::{CopyOptions, Drive, ErrorKind, JailSpec, Strategy};
use testkit::{Canary, LoopDevice};

use crate::host::{GID, Host, UID};

fn prepare(
    host: &Host,
    spec: &JailSpec,
) -> microvm_runtime::VmRuntimeResult<microvm_runtime::Prepared> {
    host.jailer().plan(spec).unwrap().prepare(&CopyOptions::new())
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn persistent_drives_are_exclusive() {
    let mut host = Host::new("persistent");
    let disk = host.scratch.file("disk.img", "written before");
    let one = host.hello("one").drive(Drive::persistent("data", &disk));
    let prepared = prepare(&host, &one).unwrap();
    let path = prepared.plan().layout().root().join("data");
    assert_eq!(
        fs::metadata(&path).unwrap().ino(),
        fs::metadata(&disk).unwrap().ino(),
        "it is the very file"
    );
    assert_eq!(fs::metadata(&path).unwrap().uid(), UID);
    let two = host.hello("two").drive(Drive::persistent("data", &disk));
    let error = prepare(&host, &two).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}: {error:?}");

    // Its launcher is gone, its jail is not: it is still lent.
    drop(prepared);
    let error = prepare(&host, &two).unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Busy | ErrorKind::Untrusted), "{error}: {error:?}");

    // A restart takes it back first.
    fs::write(&path, "written by the guest").unwrap();
    drop(prepare(&host, &one).unwrap());
    host.jailer().teardown("one").unwrap();
    assert_eq!(fs::read_to_string(&disk).unwrap(), "written by the guest");
    drop(prepare(&host, &two).unwrap());
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn block_devices_become_nodes() {
    let mut host = Host::new("block");
    let image = host.scratch.file("image", vec![0; 1 << 20]);
    let Some(device) = LoopDevice::attach(&image).unwrap() else {
        return testkit::skip("block_devices_become_nodes", "this host has no loop devices");
    };
    let spec = host.hello("vm").drive(Drive::block_device("disk", device.path()));
    let prepared = prepare(&host, &spec).unwrap();
    let node = fs::symlink_metadata(prepared.plan().layout().root().join("disk")).unwrap();
    assert!(node.file_type().is_block_device());
    assert_eq!(node.rdev(), fs::metadata(device.path()).unwrap().rdev());
    assert_eq!(node.uid(), UID);
    drop((prepared, device));
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn block_devices_boot() {
    let mut host = Host::new("devices");
    let images = ["own", "shared"].map(|name| host.scratch.file(name, vec![0; 1 << 20]));
    let [Some(own), Some(shared)] = images.map(|image| LoopDevice::attach(&image).unwrap()) else {
        return testkit::skip("block_devices_boot", "this host has no loop devices");
    };
    let spec = host
        .idle("vm")
        .drive(Drive::block_device("own", own.path()))
        .drive(Drive::shared_block_device("shared", shared.path()));
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    // Firecracker opens both as the jail's uid before its API answers for a machine that runs.
    let vm = host.jailer().launch(&spec).unwrap();
    // As whoever has taken the VMM over would: opened for reading, for both.
    let inside = fs::File::open(&root).unwrap();
    let may = |name: &str, redirection: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", &format!(": {redirection} \"$1\""), "sh", name]);
        shell.current_dir(format!("/proc/self/fd/{}", inside.as_raw_fd()));
        shell.uid(UID).gid(GID).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(may("own", "<") && may("own", "<>") && may("shared", "<"));
    assert!(!may("shared", "<>"));
    let shared_node = fs::symlink_metadata(root.join("shared")).unwrap();
    assert_eq!((shared_node.uid(), shared_node.mode() & 0o7777), (0, 0o440));
    vm.kill().unwrap();
    drop((vm, own, shared));
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn read_only_drives_are_shared() {
    let mut host = Host::new("shared");
    let shared = host.scratch.dir("shared");
    let image = host.scratch.file("shared/base.img", "base");
    let canary = Canary::take(&shared);
    let spec = host.hello("vm").drive(Drive::read_only("base", &image));
    let prepared = prepare(&host, &spec).unwrap();
    let receipt = prepared.report();
    let base =
        receipt.artifacts.iter().find(|receipt| receipt.name.as_str() == Some("base")).unwrap();
    assert_eq!(base.strategy, Strategy::HardLink, "{base:?}");
    drop(prepared);
    host.jailer().teardown("vm").unwrap();
    canary.assert_same();
    host.assert_clean();
}

//! The drives of a whole VM: shared, private, persistent, and block devices.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use microvm_runtime::{CopyOptions, Drive, ErrorKind, JailSpec, Strategy, User};
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

/// A drive is lent once everything else is staged, and the record says to whom.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_91_a_failed_prepare_lends_nothing() {
    let mut host = Host::new("lent");
    let disk = host.scratch.file("disk.img", "kept");
    let taken = host.scratch.file("taken.img", "in use");
    fs::hard_link(&taken, host.scratch.join("second name")).unwrap();
    let before = fs::metadata(&disk).unwrap();
    let user = User::Leased { first: 56_200, last: 56_200 };
    let spec = host.hello("vm").user(user).drive(Drive::persistent("data", &disk));
    let error = prepare(&host, &spec.clone().drive(Drive::persistent("other", &taken)));
    assert_eq!(error.unwrap_err().kind(), ErrorKind::Busy);
    let after = fs::metadata(&disk).unwrap();
    assert_eq!((after.uid(), after.nlink()), (before.uid(), 1));
    // Nothing hinders the next VM, whichever uid it has.
    let prepared =
        prepare(&host, &spec.user(User::Leased { first: 56_201, last: 56_201 })).unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().uid(), 56_201);
    drop(prepared);
    host.jailer().teardown("vm").unwrap();
    assert_eq!(fs::metadata(&disk).unwrap().uid(), before.uid());
    host.assert_clean();
}

/// Replaces the device numbers in a JSON document, as a reboot does that finds the disk under another number.
fn renumber(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                match key.as_str() {
                    "dev_minor" => *value = (value.as_u64().unwrap() + 77).into(),
                    _ => renumber(value),
                }
            }
        }
        serde_json::Value::Array(values) => values.iter_mut().for_each(renumber),
        _ => {}
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_92_device_numbers_may_change() {
    let mut host = Host::new("renumbered");
    let disk = host.scratch.file("disk.img", "kept");
    let owner = fs::metadata(&disk).unwrap().uid();
    let user = User::Leased { first: 56_210, last: 56_210 };
    let spec = host.idle("vm").user(user).drive(Drive::persistent("data", &disk));
    let jail = host.jailer().plan(&spec).unwrap().layout().jail_dir();
    let lease = host.config.chroot_base.join(".uids/56210");
    let renumbered = || {
        let record = jail.join("jail.json");
        let mut json = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        renumber(&mut json);
        fs::write(&record, serde_json::to_vec(&json).unwrap()).unwrap();
        let text = fs::read_to_string(&lease).unwrap();
        let (id, inode) = text.trim_end().split_once('\n').unwrap();
        let number = inode.rsplit(':').next().unwrap();
        fs::write(&lease, format!("{id}\n7:77:{number}\n")).unwrap();
    };
    host.jailer().launch(&spec).unwrap().kill().unwrap();
    renumbered();
    host.jailer().launch(&spec).unwrap().kill().unwrap();
    renumbered();
    let report = host.jailer().remove("vm").unwrap();
    assert_eq!(report.uid, Some(56_210));
    let after = fs::metadata(&disk).unwrap();
    assert_eq!((after.uid(), after.nlink()), (owner, 1));
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

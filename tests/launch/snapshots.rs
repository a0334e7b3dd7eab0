//! Snapshots under the jail: taken while the guest is paused, restored into clones that share memory and nothing else.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use microvm_runtime::{
    Afterwards, Boot, ByteSize, CopyOptions, Drive, ErrorKind, InstanceState, JailSpec, Limits,
    ResourceLimit, Restore, Snapshot, SnapshotKind, SnapshotOptions, User, Vm,
};
use testkit::{Canary, Tmpfs};

use crate::host::{Host, assert_says_hello};

pub(crate) const MINUTE: Duration = Duration::from_secs(60);

/// The uids of clones.
pub(crate) const UIDS: User = User::Leased { first: 56_000, last: 56_100 };

/// Returns the path of a drive in the VM's jail: what the guest has written is there.
pub(crate) fn in_jail(host: &Host, spec: &JailSpec, name: &str) -> PathBuf {
    host.jailer().plan(spec).unwrap().layout().root().join(name)
}

/// Boots a guest that idles, with the private drive `data`.
pub(crate) fn boot(host: &mut Host, vm_id: &str) -> (JailSpec, Vm) {
    let image = host.scratch.join("data.img");
    if !image.exists() {
        let _ = host.scratch.file("data.img", vec![b'0'; 1 << 20]);
    }
    let spec = host.idle(vm_id).drive(Drive::private("data", image));
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    (spec, vm)
}

/// Returns the spec of a clone.
pub(crate) fn clone(host: &mut Host, snapshot: &Snapshot, vm_id: &str) -> JailSpec {
    host.expect(vm_id);
    JailSpec::restored_from(snapshot, vm_id, host.binaries.firecracker(), Restore::new().as_clone())
        .user(UIDS)
        .ready_within(MINUTE)
}

fn write_at_start(path: &Path, text: &str) {
    use std::os::unix::fs::FileExt as _;
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.write_all_at(text.as_bytes(), 0).unwrap();
}

fn starts_with(path: &Path, text: &str) -> bool {
    fs::read(path).unwrap().starts_with(text.as_bytes())
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn clones_go_on_from_the_pause() {
    let mut host = Host::new("clones");
    let (spec, vm) = boot(&mut host, "origin");
    let data = in_jail(&host, &spec, "data");
    write_at_start(&data, "before the pause");
    let dir = host.scratch.join("snapshot");
    let snapshot = vm.snapshot(&dir, &SnapshotOptions::new().checksums()).unwrap();
    assert_eq!(Snapshot::open(&dir).unwrap().files(), snapshot.files());
    snapshot.verify().unwrap();
    // The VM goes on, and nothing of the snapshot stays in its jail.
    assert_eq!(vm.api().unwrap().instance_info().unwrap().state, InstanceState::Running);
    assert!(!data.with_file_name("taken.memory").exists());
    write_at_start(&data, "after the pause!");
    let canary = Canary::take(&dir);

    let specs = ["one", "two", "three"].map(|id| clone(&mut host, &snapshot, id));
    let jailer = host.jailer();
    let vms = std::thread::scope(|scope| {
        let launches = specs.each_ref().map(|spec| scope.spawn(|| jailer.launch(spec).unwrap()));
        launches.map(|launch| launch.join().unwrap())
    });
    let memory = fs::metadata(dir.join("memory")).unwrap();
    for (spec, vm) in specs.iter().zip(&vms) {
        let own = in_jail(&host, spec, "data");
        assert!(starts_with(&own, "before the pause"), "{}", vm.vm_id());
        write_at_start(&own, vm.vm_id());
        assert_eq!(vm.api().unwrap().instance_info().unwrap().state, InstanceState::Running);
        let mapped = fs::metadata(own.with_file_name("snapshot.memory")).unwrap();
        assert_eq!((mapped.ino(), mapped.dev()), (memory.ino(), memory.dev()), "memory is shared");
        assert_eq!((mapped.uid(), mapped.mode() & 0o7777), (0, 0o444));
    }
    for (spec, vm) in specs.iter().zip(&vms) {
        assert!(starts_with(&in_jail(&host, spec, "data"), vm.vm_id()));
        assert!(vm.shutdown(MINUTE).unwrap().success(), "the guest answers: {}", vm.log().text());
    }
    assert!(starts_with(&data, "after the pause!"));
    assert!(vm.shutdown(MINUTE).unwrap().success());
    drop((vm, vms));
    for spec in &specs {
        host.jailer().remove(spec.vm_id()).unwrap();
    }
    canary.assert_same();
    snapshot.verify().unwrap();
    snapshot.remove().unwrap();
    assert!(!dir.exists());
    host.assert_clean();
}

/// Changes the manifest of a snapshot.
pub(crate) fn edit(dir: &Path, change: impl FnOnce(&mut serde_json::Value)) {
    let path = dir.join("snapshot.json");
    let mut manifest = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    change(&mut manifest);
    fs::write(path, manifest.to_string()).unwrap();
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status();
    assert!(status.unwrap().success());
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_restore_is_checked_first() {
    let mut host = Host::new("checked");
    let (_, vm) = boot(&mut host, "origin");
    let whole = host.scratch.join("whole");
    let snapshot = vm.snapshot(&whole, &SnapshotOptions::new().checksums()).unwrap();
    vm.kill().unwrap();
    drop(vm);
    host.jailer().remove("origin").unwrap();
    let firecracker = host.binaries.firecracker().to_owned();
    let plan = |snapshot: &Snapshot, options: Restore| {
        let spec = JailSpec::restored_from(snapshot, "clone", &firecracker, options);
        host.jailer().plan(&spec).map(drop)
    };
    let copies = |label: &str, change: &dyn Fn(&Path)| {
        let dir = host.scratch.join(label);
        copy_dir(&whole, &dir);
        let snapshot = Snapshot::open(&dir).unwrap();
        change(&dir);
        snapshot
    };
    let refused = |snapshot: &Snapshot, options: Restore, kind, tells: &str| {
        let error = plan(snapshot, options).unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.to_string().contains(tells), "{error}");
    };
    let clone = || Restore::new().as_clone();

    refused(&snapshot, Restore::new(), ErrorKind::InvalidInput, "would be a clone");
    plan(&snapshot, clone().checksums()).unwrap();
    let other = copies("cpu", &|dir| edit(dir, |it| it["cpu"]["model"] = "another".into()));
    refused(&other, clone(), ErrorKind::Unsupported, "this host has");
    plan(&other, clone().any_cpu()).unwrap();
    let other = copies("release", &|dir| edit(dir, |it| it["firecracker"] = "1.15.0".into()));
    refused(&other, clone(), ErrorKind::Unsupported, "Firecracker 1.15.0 took it");
    plan(&other, clone().any_release()).unwrap();
    let other = copies("diff", &|dir| edit(dir, |it| it["kind"] = "diff".into()));
    refused(&other, clone(), ErrorKind::Unsupported, "since another snapshot");

    let other = copies("missing", &|dir| fs::remove_file(dir.join("drives/data")).unwrap());
    refused(&other, clone(), ErrorKind::NotFound, "data");
    let shorter = |dir: &Path| {
        fs::OpenOptions::new().write(true).open(dir.join("vmstate")).unwrap().set_len(9).unwrap()
    };
    let other = copies("shorter", &shorter);
    refused(&other, clone(), ErrorKind::Record, "it has 9 bytes");
    let other = copies("changed", &|dir| write_at_start(&dir.join("drives/data"), "changed"));
    plan(&other, clone()).unwrap();
    refused(&other, clone().checksums(), ErrorKind::Record, "SHA-256");
    assert_eq!(other.verify().unwrap_err().kind(), ErrorKind::Record);
    // The manifest asks for a block device, which the host's own spec must name.
    let device = |it: &mut serde_json::Value| {
        it["spec"]["drives"][0]["kind"] = "shared_block_device".into();
        it["files"].as_array_mut().unwrap().retain(|file| file["path"] != "drives/data");
    };
    let other = copies("device", &|dir| edit(dir, device));
    refused(&other, clone(), ErrorKind::InvalidInput, "is a block device");
    let spec = JailSpec::restored_from(&snapshot, "clone", &firecracker, clone()).no_api();
    assert_eq!(host.jailer().plan(&spec).unwrap_err().kind(), ErrorKind::InvalidInput);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_guest_is_left_as_asked() {
    let mut host = Host::new("asked");
    let (_, vm) = boot(&mut host, "vm");
    let state = |vm: &Vm| vm.api().unwrap().instance_info().unwrap().state;
    let dir = |name: &str| host.scratch.join(name);
    vm.pause().unwrap();
    vm.pause().unwrap();
    vm.snapshot(dir("paused"), &SnapshotOptions::new()).unwrap();
    assert_eq!(state(&vm), InstanceState::Paused, "as it was");
    vm.resume().unwrap();
    vm.resume().unwrap();
    let stay = SnapshotOptions::new().afterwards(Afterwards::StayPaused);
    vm.snapshot(dir("stays"), &stay).unwrap();
    assert_eq!(state(&vm), InstanceState::Paused);
    // Paused by a launcher that has gone.
    drop(vm);
    let vm = host.jailer().adopt("vm").unwrap();
    vm.resume().unwrap();
    // A failure leaves nothing, and the guest running.
    let other = host.scratch.file("other.img", vec![b'1'; 1 << 20]);
    let replaced = Drive::private("data", other);
    vm.replace_drive(&replaced, &CopyOptions::new(), MINUTE).unwrap();
    let error = vm.snapshot(dir("replaced"), &SnapshotOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let error = vm.snapshot(dir("stays"), &SnapshotOptions::new()).unwrap_err();
    assert!(error.to_string().contains("it exists"), "{error}");
    assert_eq!(vm.snapshot(dir("no/parent"), &stay).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(state(&vm), InstanceState::Running);
    vm.kill().unwrap();
    drop(vm);
    let (_, vm) = boot(&mut host, "vm");
    let stop = SnapshotOptions::new().afterwards(Afterwards::Stop);
    let snapshot = vm.snapshot(host.scratch.join("stopped"), &stop).unwrap();
    assert!(vm.wait_timeout(Duration::ZERO).unwrap().is_some());
    drop(vm);

    // The same VM goes on, under its own id.
    let spec = JailSpec::restored_from(
        &snapshot,
        "vm",
        host.binaries.firecracker(),
        Restore::new().paused(),
    );
    let vm = host.jailer().launch(&spec.ready_within(MINUTE)).unwrap();
    assert_eq!(state(&vm), InstanceState::Paused);
    vm.resume().unwrap();
    assert!(vm.shutdown(MINUTE).unwrap().success());
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_hook_runs_before_the_guest() {
    let mut host = Host::new("hook");
    let (_, vm) = boot(&mut host, "origin");
    let snapshot = vm.snapshot(host.scratch.join("snapshot"), &SnapshotOptions::new()).unwrap();
    vm.kill().unwrap();
    drop(vm);
    let spec = clone(&mut host, &snapshot, "clone");
    let prepare = || host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap();
    let vm = prepare()
        .launch_with(|vm| {
            assert_eq!(vm.api()?.instance_info()?.state, InstanceState::Paused);
            Ok(())
        })
        .unwrap();
    assert_eq!(vm.api().unwrap().instance_info().unwrap().state, InstanceState::Running);
    vm.kill().unwrap();
    drop(vm);
    // A hook that fails takes the VM along.
    let error = prepare().launch_with(|vm| vm.metrics_tail(1).map(drop)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(
        !host.jailer().list().unwrap().jails.iter().any(|it| it.vm_id.as_deref() == Some("clone"))
    );
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn every_kind_of_drive_is_captured() {
    let mut host = Host::new("kinds");
    let base = host.scratch.file("base.img", vec![b'b'; 1 << 20]);
    let own = host.scratch.file("own.img", vec![b'p'; 1 << 20]);
    let spec = host
        .idle("origin")
        .drive(Drive::read_only("base", &base))
        .drive(Drive::persistent("own", &own).file_name("own.img"));
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let dir = host.scratch.join("snapshot");
    let snapshot = vm.snapshot(&dir, &SnapshotOptions::new()).unwrap();
    let ino = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(ino(&dir.join("drives/base")), ino(&base), "a shared drive is shared");
    assert_ne!(ino(&dir.join("drives/own.img")), ino(&own));
    write_at_start(&own, "later");
    let spec = clone(&mut host, &snapshot, "clone");
    let restored = host.jailer().launch(&spec).unwrap();
    let root = in_jail(&host, &spec, "");
    assert!(starts_with(&root.join("own.img"), "pppp") && starts_with(&own, "later"));
    assert_eq!(ino(&root.join("base")), ino(&base));
    assert!(restored.shutdown(MINUTE).unwrap().success());
    // A snapshot of a restored VM, whose memory file is the snapshot's.
    drop(restored);
    let restored = host.jailer().launch(&spec).unwrap();
    let memory = || fs::metadata(dir.join("memory")).unwrap();
    let before = memory();
    let again = restored.snapshot(host.scratch.join("again"), &SnapshotOptions::new()).unwrap();
    assert_eq!(
        (memory().len(), memory().modified().unwrap()),
        (before.len(), before.modified().unwrap())
    );
    assert_eq!((again.vm_id(), again.files().len()), ("clone", 4));
    let third = clone(&mut host, &again, "third");
    let third = host.jailer().launch(&third).unwrap();
    assert!(third.shutdown(MINUTE).unwrap().success());
    for vm in [vm, restored] {
        vm.kill().unwrap();
    }
    drop(third);
    drop((snapshot, again));
    fs::remove_dir_all(&dir).unwrap();
    fs::remove_dir_all(host.scratch.join("again")).unwrap();
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_that_kill_are_refused() {
    let mut host = Host::new("limits");
    let limited = host.idle("fsize").resource_limit(ResourceLimit::FileSize(64 << 20));
    let vm = host.jailer().launch(&limited).unwrap();
    let dir = host.scratch.join("snapshot");
    let error = vm.snapshot(&dir, &SnapshotOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.to_string().contains("RLIMIT_FSIZE"), "{error}");
    vm.kill().unwrap();
    drop(vm);

    // Files of tmpfs count as memory.
    let tmpfs = Tmpfs::mount(&host.scratch.dir("tmpfs"), "size=1g");
    let mut on_tmpfs = host.config.clone();
    on_tmpfs.chroot_base = tmpfs.path().join("base");
    let jailer = microvm_runtime::Jailer::new(on_tmpfs);
    let limited = host.idle("tmpfs").limits(Limits::new().memory_max(ByteSize::mib(100)));
    let vm = jailer.launch(&limited).unwrap();
    assert_says_hello(&vm);
    let error = vm.snapshot(&dir, &SnapshotOptions::new()).unwrap_err();
    assert!(error.to_string().contains("tmpfs"), "{error}");
    assert_eq!(vm.api().unwrap().instance_info().unwrap().state, InstanceState::Running);
    vm.kill().unwrap();
    drop(vm);
    jailer.remove("tmpfs").unwrap();
    drop(tmpfs);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn bases_elsewhere_share_one_copy() {
    let mut host = Host::new("elsewhere");
    let (_, vm) = boot(&mut host, "origin");
    let snapshot = vm.snapshot(host.scratch.join("snapshot"), &SnapshotOptions::new()).unwrap();
    vm.kill().unwrap();
    drop(vm);
    let tmpfs = Tmpfs::mount(&host.scratch.dir("tmpfs"), "size=1g");
    let mut elsewhere = host.config.clone();
    elsewhere.chroot_base = tmpfs.path().join("base");
    let jailer = microvm_runtime::Jailer::new(elsewhere);
    let specs = ["one", "two"].map(|id| clone(&mut host, &snapshot, id));
    let vms = std::thread::scope(|scope| {
        let launches = specs.each_ref().map(|spec| scope.spawn(|| jailer.launch(spec).unwrap()));
        launches.map(|launch| launch.join().unwrap())
    });
    let memory = |spec| {
        let root = jailer.plan(spec).unwrap().layout().root();
        fs::metadata(root.join("snapshot.memory")).unwrap()
    };
    assert_eq!(memory(&specs[0]).ino(), memory(&specs[1]).ino());
    // The copy's own name, and one in each jail.
    assert_eq!(memory(&specs[0]).nlink(), 3);
    assert!(jailer.sweep().unwrap().problems.is_empty());
    let copies = || fs::read_dir(tmpfs.path().join("base/.snapshots")).unwrap().count();
    assert_eq!(copies(), 1);
    for vm in vms {
        assert!(vm.shutdown(MINUTE).unwrap().success());
        let id = vm.vm_id().to_owned();
        drop(vm);
        jailer.remove(&id).unwrap();
    }
    jailer.sweep().unwrap();
    assert_eq!(copies(), 0, "a copy that no jail has is swept");
    drop(tmpfs);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_diff_has_the_written_pages_alone() {
    let mut host = Host::new("diff");
    let spec = host.idle("vm").boot(Boot::new().track_dirty_pages(true));
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let take = |name: &str, kind| {
        vm.snapshot(host.scratch.join(name), &SnapshotOptions::new().kind(kind)).unwrap()
    };
    let full = take("full", SnapshotKind::Full);
    let diff = take("diff", SnapshotKind::Diff);
    assert_eq!((full.kind(), diff.kind()), (SnapshotKind::Full, SnapshotKind::Diff));
    let memory = |snapshot: &Snapshot| fs::metadata(snapshot.path().join("memory")).unwrap();
    assert_eq!(memory(&full).len(), memory(&diff).len());
    assert!(memory(&diff).blocks() <= memory(&full).blocks());
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

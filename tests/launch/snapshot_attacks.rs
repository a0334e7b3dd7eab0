//! Rows 80 to 85 of the threat model: snapshots of hostile VMs, clones that attack their siblings, and forged snapshots. Each attack
//! has a weak twin that falls for it.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use microvm_runtime::{ErrorKind, JailSpec, Restore, Snapshot, SnapshotOptions, Vm};
use serde_json::json;

use crate::host::Host;
use crate::snapshots::{MINUTE, boot, clone, copy_dir, edit, in_jail};

/// Launches the hostile VMM in a mode of its snapshots.
fn hostile(host: &mut Host, mode: &str) -> (PathBuf, Vm) {
    let spec = host.hostile(mode, mode);
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    (root, host.jailer().launch(&spec).unwrap())
}

/// Has the VMM write a snapshot, as a launcher does that reads the files by path.
fn create_by_hand(vm: &Vm) {
    let body = json!({ "snapshot_path": "/taken.vmstate", "mem_file_path": "/taken.memory" });
    vm.api().unwrap().request("PUT", "/snapshot/create", Some(&body)).unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_80_replaced_memory_file() {
    let mut host = Host::new("trap");
    for (mode, tells) in [
        ("snapshot-link", "Too many levels of symbolic links"),
        ("snapshot-fifo", "it is a fifo"),
        ("snapshot-larger", "it has 1099511627776 bytes"),
        ("snapshot-two-names", "it has 2 names"),
    ] {
        let (root, vm) = hostile(&mut host, mode);
        let dir = host.scratch.join(mode);
        let error = vm.snapshot(&dir, &SnapshotOptions::new().within(MINUTE)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{mode}: {error}");
        assert!(error.to_string().contains(tells), "{mode}: {error}");
        assert!(!dir.exists() && !root.join("taken.memory").exists(), "{mode} left something");
        let rest = fs::read_dir(host.scratch.path()).unwrap();
        let staged = |name: &str| name.starts_with(".staging-");
        assert!(!rest.flatten().any(|it| it.file_name().to_str().is_some_and(staged)));
        if mode == "snapshot-link" {
            // The weak twin copies by path, and the snapshot has a file of the host.
            create_by_hand(&vm);
            let copied = fs::read(root.join("taken.memory")).unwrap();
            assert_eq!(copied, fs::read("/etc/passwd").unwrap(), "the twin saw no attack");
        }
        vm.kill().unwrap();
    }
    host.assert_clean();
}

/// Waits until the hostile VMM has written into the file that it kept open.
fn wait_for_poison(root: &Path) {
    let begun = Instant::now();
    while !root.join("poisoned").exists() {
        assert!(begun.elapsed() < MINUTE, "the VMM has not written");
        std::thread::yield_now();
    }
    fs::remove_file(root.join("poisoned")).unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_81_memory_file_kept_open() {
    let mut host = Host::new("kept");
    let (root, vm) = hostile(&mut host, "snapshot-kept-open");
    let dir = host.scratch.join("snapshot");
    let snapshot = vm.snapshot(&dir, &SnapshotOptions::new().checksums().within(MINUTE)).unwrap();
    wait_for_poison(&root);
    snapshot.verify().unwrap();
    assert!(!fs::read(dir.join("memory")).unwrap().starts_with(b"poison"));
    // The weak twin renames the file out of the jail, and makes it root's.
    create_by_hand(&vm);
    let renamed = host.scratch.join("renamed");
    fs::rename(root.join("taken.memory"), &renamed).unwrap();
    chown(&renamed, Some(0), Some(0)).unwrap();
    wait_for_poison(&root);
    assert!(fs::read(&renamed).unwrap().starts_with(b"poison"), "the twin saw no attack");
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_82_clone_writes_the_memory() {
    let mut host = Host::new("poison");
    let (_, vm) = boot(&mut host, "origin");
    let dir = host.scratch.join("snapshot");
    let snapshot = vm.snapshot(&dir, &SnapshotOptions::new().checksums()).unwrap();
    let specs = ["one", "two"].map(|id| clone(&mut host, &snapshot, id));
    let clones = specs.each_ref().map(|spec| host.jailer().launch(spec).unwrap());
    let attacker = &clones[0];
    let root = fs::File::open(in_jail(&host, &specs[0], "")).unwrap();
    // As whoever has taken the VMM over.
    let may = |script: &str, file: &str| {
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", script, "sh", file]);
        shell.current_dir(format!("/proc/self/fd/{}", root.as_raw_fd()));
        shell.uid(attacker.uid()).gid(attacker.uid()).stderr(Stdio::null());
        shell.status().unwrap().success()
    };
    let write = "printf poison 1<>\"$1\"";
    assert!(may("test -r \"$1\"", "snapshot.memory"));
    for script in [write, "chmod 0666 \"$1\"", ": >\"$1\"", "touch \"$1\""] {
        assert!(!may(script, "snapshot.memory"), "{script}");
        assert!(!may(script, "snapshot.vmstate"), "{script}");
    }
    // The name is the attacker's, and the inode is not.
    assert!(may("mv \"$1\" elsewhere", "snapshot.memory"));
    assert!(may("printf poison >\"$1\"", "snapshot.memory"));
    snapshot.verify().unwrap();
    let other = in_jail(&host, &specs[1], "snapshot.memory");
    assert_eq!(fs::metadata(other).unwrap().ino(), fs::metadata(dir.join("memory")).unwrap().ino());

    // The weak twin gives the linked file to the jail's uid, as a later release of the 0.4 API does.
    let golden = host.scratch.file("images/memory", "memory of all");
    let linked = in_jail(&host, &specs[0], "linked");
    fs::hard_link(&golden, &linked).unwrap();
    chown(&linked, Some(attacker.uid()), None).unwrap();
    assert!(may(write, "linked"));
    assert!(fs::read(&golden).unwrap().starts_with(b"poison"), "the twin saw no attack");
    fs::remove_file(&golden).unwrap();

    assert!(clones[1].shutdown(MINUTE).unwrap().success());
    drop((clones, vm));
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_83_removal_during_restores() {
    let mut host = Host::new("removal");
    let (_, vm) = boot(&mut host, "origin");
    let whole = host.scratch.join("whole");
    vm.snapshot(&whole, &SnapshotOptions::new()).unwrap();
    vm.kill().unwrap();
    drop(vm);
    let (mut won, mut lost) = (0, 0);
    for round in 0..6 {
        let dir = host.scratch.join(format!("round-{round}"));
        copy_dir(&whole, &dir);
        let snapshot = Snapshot::open(&dir).unwrap();
        let specs = ["one", "two"].map(|id| clone(&mut host, &snapshot, id));
        let jailer = host.jailer();
        let launches = std::thread::scope(|scope| {
            let launches = specs.each_ref().map(|spec| scope.spawn(|| jailer.launch(spec)));
            // By turns right away, and a little later.
            for _ in 0..round * 2_000 {
                std::thread::yield_now();
            }
            let removal = scope.spawn(|| snapshot.remove());
            removal.join().unwrap().unwrap();
            launches.map(|launch| launch.join().unwrap())
        });
        assert!(!dir.exists());
        for (spec, launched) in specs.iter().zip(launches) {
            match launched {
                Ok(vm) => {
                    won += 1;
                    assert!(vm.shutdown(MINUTE).unwrap().success(), "a clone lost its memory");
                }
                Err(error) => {
                    lost += 1;
                    assert!(
                        matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Filesystem),
                        "{error}"
                    );
                    assert!(error.cleanup_failures().is_empty(), "{error}");
                }
            }
            jailer.remove(spec.vm_id()).unwrap();
        }
    }
    println!("{won} restores, {lost} came too late");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_84_forged_manifest() {
    let mut host = Host::new("forged");
    let (_, vm) = boot(&mut host, "origin");
    let whole = host.scratch.join("whole");
    vm.snapshot(&whole, &SnapshotOptions::new()).unwrap();
    vm.kill().unwrap();
    drop(vm);
    let secret = host.scratch.file("secret", "the host's own");
    let text = secret.to_str().unwrap();
    // Paths of the host in the manifest: none is opened.
    let dir = host.scratch.join("paths");
    copy_dir(&whole, &dir);
    edit(&dir, |it| {
        let spec = &mut it["spec"];
        spec["drives"][0]["source"] = text.into();
        spec["drives"][0]["kind"] = "read_only".into();
        for field in ["kernel", "initrd", "exec_file"] {
            spec[field] = text.into();
        }
        spec["console"] = json!({ "file": text });
        spec["user"] = json!({ "fixed": { "uid": 0, "gid": 0 } });
    });
    // The weak twin takes the manifest's spec as it is.
    let manifest = fs::read_to_string(dir.join("snapshot.json")).unwrap();
    assert!(manifest.matches(text).count() >= 4, "the twin saw no attack");
    let spec = clone(&mut host, &Snapshot::open(&dir).unwrap(), "clone");
    let plan = host.jailer().plan(&spec).unwrap();
    let planned = format!("{plan}{}", serde_json::to_string(&plan).unwrap());
    assert!(!planned.contains(text) && !planned.contains("\"uid\":0"), "{planned}");
    // Names that lead out, files that are something else, and text that is no manifest.
    let refused = |label: &str, change: &dyn Fn(&Path)| {
        let dir = host.scratch.join(label);
        copy_dir(&whole, &dir);
        change(&dir);
        let error = Snapshot::open(&dir).unwrap_err();
        println!("{label}: {error}");
        assert!(!error.to_string().contains("the host's own"));
        let kind = error.kind();
        assert!(
            matches!(kind, ErrorKind::Record | ErrorKind::Untrusted | ErrorKind::InvalidInput),
            "{label}: {error}"
        );
    };
    refused("up", &|dir| edit(dir, |it| it["spec"]["drives"][0]["file_name"] = "../secret".into()));
    refused("listed", &|dir| edit(dir, |it| it["files"][0]["path"] = "../secret".into()));
    refused("format", &|dir| edit(dir, |it| it["format"] = 7.into()));
    refused("fields", &|dir| edit(dir, |it| it["more"] = 7.into()));
    refused("huge", &|dir| {
        fs::OpenOptions::new()
            .write(true)
            .open(dir.join("snapshot.json"))
            .unwrap()
            .set_len(1 << 40)
            .unwrap()
    });
    for name in ["snapshot.json", "memory", "vmstate", "drives/data"] {
        refused(&format!("link-{}", name.replace('/', "-")), &|dir| {
            fs::remove_file(dir.join(name)).unwrap();
            symlink(&secret, dir.join(name)).unwrap();
        });
    }
    refused("link-drives", &|dir| {
        fs::remove_dir_all(dir.join("drives")).unwrap();
        symlink("/etc", dir.join("drives")).unwrap();
    });
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_85_snapshot_that_others_can_write() {
    let mut host = Host::new("writable");
    let (_, vm) = boot(&mut host, "origin");
    let dir = host.scratch.join("snapshot");
    vm.snapshot(&dir, &SnapshotOptions::new()).unwrap();
    let metadata = fs::metadata(&dir).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (0, 0o700));
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let refused = || {
        let error = Snapshot::open(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        // The weak twin reads by path.
        assert!(fs::read(dir.join("snapshot.json")).is_ok());
    };
    for name in ["", "drives", "memory", "vmstate", "drives/data"] {
        let path = dir.join(name);
        let before = fs::metadata(&path).unwrap().mode() & 0o7777;
        for (others, owner) in [(0o002, 0), (0o020, 0), (0, 12_345)] {
            mode(&path, before | others);
            chown(&path, Some(owner), None).unwrap();
            refused();
        }
        chown(&path, Some(0), None).unwrap();
        mode(&path, before);
        Snapshot::open(&dir).unwrap();
    }
    // Nor is a snapshot taken into such a directory, and its spec is refused at the plan.
    let shared = host.scratch.dir("shared");
    mode(&shared, 0o777);
    let error = vm.snapshot(shared.join("x"), &SnapshotOptions::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    let snapshot = Snapshot::open(&dir).unwrap();
    let firecracker = host.binaries.firecracker().to_owned();
    let spec = JailSpec::restored_from(&snapshot, "c", firecracker, Restore::new().as_clone());
    mode(&dir, 0o777);
    assert_eq!(host.jailer().plan(&spec).unwrap_err().kind(), ErrorKind::Untrusted);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

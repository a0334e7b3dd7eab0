//! threats.md: jails that are beside one another: other bases, other users, other launchers at the same time.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use microvm_runtime::{CopyOptions, Drive, ErrorKind, JailState, Jailer, User};

use crate::host::Host;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_49_bases_do_not_share_a_leaf() {
    let mut host = Host::new("bases");
    let mut config = host.config.clone();
    config.chroot_base = host.scratch.join("other-base");
    let other = Jailer::new(config);
    let spec = host.idle("vm");
    if host.jailer().plan(&spec).unwrap().leaf().is_none() {
        return testkit::skip("row_49_bases_do_not_share_a_leaf", "this host has no hierarchy");
    }
    let vm = host.jailer().launch(&spec).unwrap();
    let error = other.launch(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cgroup, "{error}");
    // A jail of the other base that was prepared before the first base took the leaf.
    vm.kill().unwrap();
    drop(vm);
    host.jailer().teardown("vm").unwrap();
    drop(other.plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap());
    for path in other.plan(&spec).unwrap().leaf().unwrap().paths() {
        fs::remove_dir(path).unwrap();
    }
    let vm = host.jailer().launch(&spec).unwrap();
    let list = other.list().unwrap();
    assert!(matches!(list.jails.as_slice(), [one] if one.state == JailState::Stopped), "{list:?}");
    assert_eq!(other.remove("vm").unwrap().killed, 0);
    assert!(vm.wait_timeout(std::time::Duration::ZERO).unwrap().is_none(), "the VM was killed");
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

/// The inode number of a root that was removed is soon another jail's.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_53_a_number_used_again_kills_nobody() {
    let mut host = Host::new("numbers");
    let first = host.idle("first");
    let prepared = host.jailer().plan(&first).unwrap().prepare(&CopyOptions::new()).unwrap();
    let (root, jail) = (prepared.report().root, prepared.plan().layout().jail_dir());
    drop(prepared);
    fs::remove_dir_all(jail.join("root")).unwrap();
    let second = host.idle("second");
    let vm = host.jailer().launch(&second).unwrap();
    // The record of the first names the root of the second, whatever number the filesystem gave.
    let path = jail.join("jail.json");
    let record: serde_json::Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let other = host.jailer().plan(&second).unwrap().layout().root();
    let mut record = record;
    record["root"]["ino"] = fs::metadata(other).unwrap().ino().into();
    record["leaf"] = serde_json::Value::Null;
    record["born_in_leaf"] = false.into();
    fs::write(&path, serde_json::to_vec(&record).unwrap()).unwrap();
    let _ = root;
    assert_eq!(host.jailer().remove("first").unwrap().killed, 0);
    assert!(vm.wait_timeout(std::time::Duration::ZERO).unwrap().is_none(), "the VM was killed");
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_52_verbs_at_one_time_see_no_damage() {
    let mut host = Host::new("meanwhile");
    let specs: Vec<_> = (0..3)
        .map(|n| {
            let user = User::Leased { first: 56_100, last: 56_199 };
            host.hello(&format!("vm-{n}")).user(user)
        })
        .collect();
    let jailer = host.jailer();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let makers = specs.iter().map(|spec| {
            let jailer = &jailer;
            scope.spawn(move || {
                for _ in 0..60 {
                    let plan = jailer.plan(spec).unwrap();
                    drop(plan.prepare(&CopyOptions::new()).unwrap_or_else(|e| panic!("{e}")));
                    jailer.teardown(spec.vm_id()).unwrap_or_else(|e| panic!("{e}"));
                }
            })
        });
        let makers: Vec<_> = makers.collect();
        scope.spawn(|| {
            while !done.load(Ordering::SeqCst) {
                let list = jailer.list().unwrap();
                assert!(list.problems.is_empty(), "{list:?}");
                assert!(list.jails.iter().all(|it| it.state == JailState::Stopped), "{list:?}");
                let swept = jailer.sweep().unwrap();
                // A uid whose jail is gone may be given back by either.
                assert!(swept.problems.is_empty(), "{swept:?}");
            }
        });
        let ended: Vec<_> = makers.into_iter().map(|maker| maker.join()).collect();
        done.store(true, Ordering::SeqCst);
        assert!(ended.iter().all(Result::is_ok));
    });
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_54_what_cannot_be_removed_keeps_its_uid() {
    let mut host = Host::new("kept");
    let spec = host.hello("vm").user(User::Leased { first: 56_200, last: 56_200 });
    let prepared = host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap();
    let jail = prepared.plan().layout().jail_dir();
    drop(prepared);
    // A removal that was cut short, and a mount that keeps it so.
    let aside = jail.parent().unwrap().join(".trash-vm-0");
    fs::rename(&jail, &aside).unwrap();
    let mount = testkit::Tmpfs::mount(&aside.join("root"), "");
    let swept = host.jailer().sweep().unwrap();
    assert!(swept.uids.is_empty(), "{swept:?}");
    assert!(swept.problems.iter().any(|it| it.path == aside), "{swept:?}");
    drop(mount);
    let swept = host.jailer().sweep().unwrap();
    assert_eq!((swept.trees, swept.uids), (vec![aside], vec![56_200]));
    // Nothing else knows of the leaf now.
    for path in host.jailer().plan(&spec).unwrap().leaf().into_iter().flat_map(|it| it.paths()) {
        let _ = fs::remove_dir(path);
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_56_a_uid_is_one_vms() {
    let mut host = Host::new("uids");
    let range = User::Leased { first: 56_300, last: 56_302 };
    let jailer = host.jailer();
    let prepare = |jailer: &Jailer, spec: &microvm_runtime::JailSpec| {
        let prepared = jailer.plan(spec)?.prepare(&CopyOptions::new())?;
        Ok::<_, microvm_runtime::VmRuntimeError>(prepared.report().uid)
    };
    // The configuration's own uid is nobody's to lease, nor is one that a process has.
    let mut config = host.config.clone();
    config.uid = 56_300;
    let configured = Jailer::new(config);
    let mut sleep = std::process::Command::new("/bin/sleep");
    let stranger = testkit::KillOnDrop::spawn(
        testkit::as_user(
            {
                sleep.arg("1000");
                sleep
            },
            56_301,
        )
        .stdin(std::process::Stdio::null()),
    );
    let one = host.hello("one").user(range);
    assert_eq!(prepare(&configured, &one).unwrap(), 56_302);
    let two = host.hello("two").user(range);
    assert_eq!(prepare(&configured, &two).unwrap_err().kind(), ErrorKind::Busy);
    // A fixed user does not get what is leased.
    let three = host.hello("three").user(User::Fixed { uid: 56_302, gid: 56_302 });
    let error = prepare(&jailer, &three).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("one"), "{error}");
    drop(stranger);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_56_a_returned_drive_has_its_owner_again() {
    let mut host = Host::new("returned");
    let disk = host.scratch.file("disk.img", "kept");
    let owner = |path: &std::path::Path| {
        let facts = fs::metadata(path).unwrap();
        (facts.uid(), facts.gid(), facts.nlink())
    };
    let before = owner(&disk);
    let spec = host
        .hello("vm")
        .drive(Drive::persistent("data", &disk))
        .user(User::Leased { first: 56_400, last: 56_400 });
    for again in [false, true] {
        drop(host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap());
        assert_eq!(owner(&disk), (56_400, 56_400, 2));
        if again {
            // As a jail that is made anew.
            drop(host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap());
        }
        host.jailer().teardown("vm").unwrap();
        assert_eq!(owner(&disk), before);
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_58_a_directory_that_others_change_is_named() {
    let mut host = Host::new("changed");
    let spec = host.idle("vm").user(User::Leased { first: 56_500, last: 56_500 });
    let vm = host.jailer().launch(&spec).unwrap();
    let exec_dir = host.jailer().plan(&spec).unwrap().layout().exec_dir();
    let mode = |mode| fs::set_permissions(&exec_dir, fs::Permissions::from_mode(mode)).unwrap();
    mode(0o775);
    let list = host.jailer().list().unwrap();
    assert!(matches!(list.problems.as_slice(), [one] if one.path == exec_dir), "{list:?}");
    let swept = host.jailer().sweep().unwrap();
    assert!(swept.uids.is_empty() && swept.problems.len() == 1, "{swept:?}");
    let error = host.jailer().teardown("vm").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
    assert!(error.to_string().contains(exec_dir.to_str().unwrap()), "{error}");
    mode(0o755);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

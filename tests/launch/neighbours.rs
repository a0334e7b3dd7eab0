//! Attacks of the threat model between neighbours: other bases, other users, and other launchers at the same time.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::sync::atomic::{AtomicBool, Ordering};

use microvm_runtime::{CopyOptions, Drive, ErrorKind, JailState, Jailer, Limits, User};

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
fn row_55_a_forked_childs_copies_release_nothing() {
    let mut host = Host::new("forked");
    let spec = host.idle("vm").user(User::Leased { first: 55_500, last: 55_500 });
    let busy = |host: &Host| {
        let error = host.jailer().remove("vm").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    };
    let mut prepared =
        Some(host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap());
    assert!(testkit::in_fork(|| drop(prepared.take())));
    busy(&host);
    let mut vm = Some(prepared.take().unwrap().launch().unwrap());
    assert!(testkit::in_fork(|| drop(vm.take())));
    busy(&host);
    let vm = vm.unwrap();
    assert!(vm.wait_timeout(std::time::Duration::ZERO).unwrap().is_none(), "the VM was killed");
    // The parent's own copy releases the jail.
    vm.kill().unwrap();
    drop(vm);
    assert_eq!(host.jailer().remove("vm").unwrap().uid, Some(55_500));
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

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_75_a_copied_base_harms_nobody() {
    let mut host = Host::new("copied");
    let disk = host.scratch.file("disk.img", "kept");
    let spec = host
        .idle("vm")
        .drive(Drive::persistent("data", &disk))
        .user(User::Leased { first: 57_100, last: 57_100 });
    let vm = host.jailer().launch(&spec).unwrap();
    vm.console().unwrap();
    let mut config = host.config.clone();
    config.chroot_base = host.scratch.join("copy");
    let copied = std::process::Command::new("cp")
        .arg("-a")
        .args([&host.config.chroot_base, &config.chroot_base])
        .status();
    assert!(copied.unwrap().success());
    let copy = Jailer::new(config);
    let list = copy.list().unwrap();
    assert!(matches!(list.jails[0].state, JailState::Damaged { .. }), "{list:?}");
    assert!(copy.adopt("vm").is_err());
    // Refused while somebody of this uid runs whose root is no other jail's of that base.
    let _ = copy.remove("vm");
    assert!(vm.wait_timeout(std::time::Duration::ZERO).unwrap().is_none(), "the VM was killed");
    let facts = fs::metadata(&disk).unwrap();
    assert_eq!((facts.uid(), facts.nlink()), (57_100, 2), "the drive was taken away");
    vm.kill().unwrap();
    drop(vm);
    host.jailer().teardown("vm").unwrap();
    copy.remove("vm").unwrap();
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_79_another_pid_namespace_sees_the_vm_run() {
    const TEST: &str = "neighbours::row_79_another_pid_namespace_sees_the_vm_run";
    if testkit::role().is_some() {
        let config = microvm_runtime::JailerConfig::try_from_env().unwrap();
        let spec = std::env::var(crate::host::LAUNCHER_SPEC).unwrap();
        let spec: microvm_runtime::JailSpec = serde_json::from_str(&spec).unwrap();
        let jailer = Jailer::new(config.clone());
        let list = jailer.list().unwrap();
        let running = |state: &JailState| match state {
            JailState::Unrecorded { processes, .. } => config.cgroup_v2 && *processes > 0,
            JailState::Damaged { reason } => !config.cgroup_v2 && reason.contains("pid namespace"),
            _ => false,
        };
        assert!(running(&list.jails[0].state), "{list:?}");
        for error in [jailer.launch(&spec).unwrap_err(), jailer.adopt(spec.vm_id()).unwrap_err()] {
            assert!(matches!(error.kind(), ErrorKind::Running | ErrorKind::Unsupported), "{error}");
        }
        if !config.cgroup_v2 {
            assert_eq!(jailer.remove(spec.vm_id()).unwrap_err().kind(), ErrorKind::Unsupported);
        }
        return;
    }
    for v2 in [true, false] {
        let mut host = Host::new("hidden");
        host.config.cgroup_v2 = v2;
        let disk = host.scratch.file("disk.img", "kept");
        let spec = host.idle("vm").drive(Drive::persistent("data", &disk));
        match host.jailer().plan(&spec).unwrap().leaf() {
            Some(leaf) if (leaf.version() == microvm_runtime::CgroupVersion::V2) == v2 => {}
            _ => {
                testkit::skip(&format!("{TEST} (v2: {v2})"), "this host has no such hierarchy");
                continue;
            }
        }
        // Without a lock: the launcher has exited, or has dropped its handle.
        drop(host.jailer().launch(&spec).unwrap());
        let mut inside = host.launcher(TEST, "launcher", &spec);
        inside.env("MICROVM_JAILER_CGROUP_VERSION", if v2 { "2" } else { "1" });
        let status = testkit::in_pid_namespace(&inside).status().unwrap();
        assert!(status.success(), "v2: {v2}");
        let vm = host.jailer().adopt("vm").unwrap();
        assert!(vm.wait_timeout(std::time::Duration::ZERO).unwrap().is_none(), "the VM was killed");
        assert_eq!(fs::metadata(&disk).unwrap().nlink(), 2, "the drive was taken away");
        vm.kill().unwrap();
        drop(vm);
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_78_a_uid_that_came_into_use_is_refused() {
    let mut host = Host::new("both");
    let mut config = host.config.clone();
    config.chroot_base = host.scratch.join("other-base");
    config.cgroup_parent = testkit::unique("other");
    let other = Jailer::new(config.clone());
    let user = User::Leased { first: 57_800, last: 57_800 };
    let spec = host.idle("one").user(user);
    let rival = host.idle("two").user(user);
    // Both lease the uid, as nothing has it yet.
    let prepared = host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap();
    let vm = other.launch(&rival).unwrap();
    let error = prepared.launch().map(drop).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
    assert!(error.to_string().contains("57800"), "{error}");
    assert!(host.jailer().list().unwrap().jails.is_empty(), "the refused jail stays");
    vm.kill().unwrap();
    drop(vm);
    other.teardown("two").unwrap();
    testkit::remove_cgroup(&config.cgroup_parent);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_86_a_parent_that_is_a_file_is_no_trap() {
    for (v2, parent) in [(true, "cgroup.procs"), (false, "cgroup.procs"), (false, "cgroup.procs/x")]
    {
        let mut host = Host::new("file");
        host.config.cgroup_v2 = v2;
        let spec = host.idle("vm");
        let mut config = host.config.clone();
        config.cgroup_parent = parent.to_owned();
        let jailer = Jailer::new(config);
        match jailer.launch(&spec) {
            Ok(vm) => panic!("{parent}: it runs in {:?}", vm.cgroup()),
            Err(error) => {
                assert!(
                    matches!(error.kind(), ErrorKind::Cgroup | ErrorKind::InvalidInput),
                    "{parent}: {error}"
                );
            }
        }
        assert!(jailer.list().unwrap().jails.is_empty(), "{parent}: the jail stays");
        assert!(jailer.sweep().unwrap().problems.is_empty());
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_96_a_refused_parent_is_refused_without_limits() {
    let mut host = Host::new("parents");
    host.config.cgroup_parent = "a/".repeat(1_200) + "a";
    let spec = host.idle("vm");
    for limits in [Limits::new(), Limits::new().pids_max(9)] {
        let error = host.jailer().plan(&spec.clone().limits(limits)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    }
}

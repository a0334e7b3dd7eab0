//! A jailed VM in each pid namespace mode, with each kind of network, and on each version of control groups.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use microvm_runtime::{
    ByteSize, CgroupVersion, ErrorKind, ExitStatus, JailSpec, Limits, Network, PidNamespace, Vm,
};

use testkit::GUEST_LINE;

use crate::host::{GID, Host, UID, assert_says_hello};

const MODES: [PidNamespace; 3] =
    [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host];

/// Returns a host with a chroot base of 80 bytes.
fn long_base(label: &str) -> Host {
    let host = Host::with_base(label, |scratch| {
        let stem = scratch.path().as_os_str().len() + 1;
        scratch.join("b".repeat(80 - stem))
    });
    assert_eq!(host.config.chroot_base.as_os_str().len(), 80);
    host
}

/// Asserts that the kernel reports a running VM as requested.
fn assert_confined(vm: &Vm, mode: PidNamespace) {
    let seen = vm.inspect().unwrap();
    assert_eq!(seen.uids, [UID; 4], "real, effective, saved, filesystem");
    assert_eq!(seen.gids, [GID; 4]);
    let opened = seen.descriptors.iter().filter(|fd| fd.number > 2 && fd.target.starts_with("/"));
    assert!(opened.clone().all(|fd| fd.inside_jail), "{:?}", opened.collect::<Vec<_>>());
    match mode {
        PidNamespace::Host => assert_eq!(seen.ns_pids.len(), 1),
        _ => assert_eq!(seen.ns_pids.last(), Some(&1), "it is PID 1 of a namespace of its own"),
    }
}

/// Every mode, version of control groups and network at once, at the longest id under a long base.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn every_combination_boots() {
    const NAME: &str = "every_combination_boots";
    let mut host = long_base("matrix");
    let netns = testkit::Netns::new(&host.scratch);
    let ours = fs::metadata("/proc/self/ns/net").unwrap().ino();
    let limits = Limits::new().memory_max(ByteSize::mib(256)).cpus(0.5).pids_max(64);
    let mut done = 0;
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        for mode in MODES {
            for network in
                [Network::Isolated, Network::Namespace(netns.path().into()), Network::Host]
            {
                let id = format!("{done:0>64}");
                let spec = host.idle(&id).pid_namespace(mode).cgroup_version(version);
                let spec = spec.network(network.clone());
                let limited = spec.clone().limits(limits.clone());
                let vm = match host.jailer().launch(&limited) {
                    // A hierarchy without these controllers still has a leaf for each VM.
                    Err(error) if error.kind() == ErrorKind::Unsupported => {
                        host.jailer().launch(&spec)
                    }
                    launched => launched,
                };
                let vm = match vm {
                    Ok(vm) => vm,
                    Err(error) if error.kind() == ErrorKind::Unsupported => {
                        testkit::skip(&format!("{NAME} ({version:?})"), &error.to_string());
                        continue;
                    }
                    Err(error) => panic!("{version:?}, {mode:?}, {network}: {error:?}"),
                };
                done += 1;
                assert_says_hello(&vm);
                assert_confined(&vm, mode);
                assert!(vm.cgroup().unwrap().contains(vm.pid()).unwrap());
                let inode = vm.inspect().unwrap().network_namespace;
                let offered = fs::File::from(vm.network_namespace().unwrap());
                assert_eq!(offered.metadata().unwrap().ino(), inode);
                match network {
                    Network::Namespace(_) => assert_eq!(inode, netns.inode()),
                    Network::Host => assert_eq!(inode, ours),
                    _ => assert!(inode != ours && inode != netns.inode(), "{network}"),
                }
                assert_eq!(vm.api().unwrap().instance_info().unwrap().id, id);
                let exit = vm.shutdown(Duration::from_secs(60)).unwrap();
                let unknown = mode == PidNamespace::ByJailer
                    && !testkit::kernel_tells_exit_of_strangers()
                    && exit.status == ExitStatus::Unknown;
                assert!(exit.success() || unknown, "{version:?}, {mode:?}: {exit:?}");
            }
        }
    }
    assert!(done > 0, "no version of control groups is here");
    drop(netns);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn guest_reset_is_status_0() {
    for (index, mode) in MODES.into_iter().enumerate() {
        let mut host = Host::new("mode");
        let spec = host.hello(&format!("hello-{index}")).pid_namespace(mode).no_api();
        let vm = loop {
            match host.jailer().launch(&spec) {
                Ok(vm) => break vm,
                // Done before anyone could look, and reaped by another: that is all there is to say of it. Again.
                Err(error) if mode == PidNamespace::ByJailer => {
                    let death = error.early_death().expect("it says how");
                    assert_eq!(death.status(), ExitStatus::Unknown, "{error:?}");
                    assert!(death.console_tail().contains(GUEST_LINE), "{error:?}");
                }
                Err(error) => panic!("{mode:?}: {error:?}"),
            }
        };
        assert_says_hello(&vm);
        let exit = vm.wait().unwrap();
        match exit.status {
            ExitStatus::Exited(code) => assert_eq!(code, 0, "{mode:?}"),
            ExitStatus::Unknown => {
                assert_eq!(mode, PidNamespace::ByJailer, "our own child's status is known");
                assert!(!testkit::kernel_tells_exit_of_strangers(), "the kernel can tell");
            }
            other => panic!("{mode:?}: {other:?}"),
        }
        drop(vm);
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn api_vm_answers_in_each_mode() {
    for (index, mode) in MODES.into_iter().enumerate() {
        let mut host = Host::new("api");
        let spec = host.idle(&format!("idle-{index}")).pid_namespace(mode);
        let vm = host.jailer().launch(&spec).unwrap();
        assert_confined(&vm, mode);
        let info = vm.api().unwrap().instance_info().unwrap();
        assert_eq!(info.id, format!("idle-{index}"));
        assert!(vm.ready_after().is_some());
        let exit = vm.kill().unwrap();
        assert!(!exit.success(), "{exit:?}");
        assert_ne!(exit.oom_killed, Some(true));
        drop(vm);
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn bad_config_is_an_early_death() {
    for (index, mode) in MODES.into_iter().enumerate() {
        let mut host = Host::new("bad");
        // An ELF header and nothing else is no kernel.
        let broken = host.scratch.file("broken", b"\x7fELF");
        let spec = host.hello(&format!("bad-{index}")).kernel(broken).pid_namespace(mode);
        let error = host.jailer().launch(&spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::EarlyDeath, "{error}: {error:?}");
        let death = error.early_death().expect("it says how");
        match death.status() {
            ExitStatus::Exited(code) => assert_eq!(code, 1, "{mode:?}: {death:?}"),
            ExitStatus::Unknown => assert!(
                mode == PidNamespace::ByJailer && !testkit::kernel_tells_exit_of_strangers(),
                "{mode:?}: {death:?}"
            ),
            other => panic!("{mode:?}: {other:?}"),
        }
        assert!(death.message().is_some_and(|message| message.contains("elf")), "{death:?}");
        assert!(death.log_tail().contains("Running Firecracker"), "its log is kept: {death:?}");
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_hold_on_each_version() {
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        let mut host = Host::new("limits");
        let limits = Limits::new().memory_max(ByteSize::mib(256)).cpus(0.5).pids_max(64);
        let spec = host.idle("limited").limits(limits).cgroup_version(version);
        let vm = match host.jailer().launch(&spec) {
            Ok(vm) => vm,
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                testkit::skip(
                    &format!("limits_hold_on_each_version ({version:?})"),
                    &error.to_string(),
                );
                continue;
            }
            Err(error) => panic!("{error}: {error:?}"),
        };
        let leaf = vm.cgroup().unwrap();
        assert!(leaf.contains(vm.pid()).unwrap());
        let effective = leaf.effective().unwrap();
        let value = |name: &str| {
            effective
                .iter()
                .find(|limit| limit.path.ends_with(name))
                .map(|limit| limit.value.clone())
                .unwrap_or_default()
        };
        let (memory, pids) = match version {
            CgroupVersion::V1 => (value("memory.limit_in_bytes"), value("pids.max")),
            CgroupVersion::V2 => (value("memory.max"), value("pids.max")),
        };
        assert_eq!((memory.as_str(), pids.as_str()), ("268435456", "64"));
        assert!(vm.stats().unwrap().memory_current.is_some());
        drop(vm);
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn unlimited_vms_have_a_leaf() {
    for v2 in [false, true] {
        let mut host = Host::new("leaf");
        host.config.cgroup_v2 = v2;
        let spec = host.idle("unlimited");
        let vm = host.jailer().launch(&spec).unwrap();
        match vm.cgroup() {
            Ok(leaf) => assert_eq!(leaf.members().unwrap(), [vm.pid()]),
            Err(error) => testkit::skip("unlimited_vms_have_a_leaf", &error.to_string()),
        }
        vm.kill().unwrap();
        drop(vm);
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn jailer_is_born_in_the_leaf() {
    const TEST: &str = "jailer_is_born_in_the_leaf";
    let none = Limits::new();
    let node = Limits::new().numa_node(0);
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        for (limits, mode) in [
            (&none, PidNamespace::ByLauncher),
            (&none, PidNamespace::ByJailer),
            (&none, PidNamespace::Host),
            // v1: a cpuset moves the memory of who joins it.
            (&node, PidNamespace::ByLauncher),
        ] {
            let mut host = Host::new("born");
            let (groups, argv) = (host.scratch.join("groups"), host.scratch.join("argv"));
            let script = format!(
                "#!/bin/sh\nif [ \"$1\" != --version ]; then cat /proc/self/cgroup > {}; echo \"$@\" > {}; fi\nexec {} \"$@\"\n",
                groups.display(),
                argv.display(),
                host.binaries.jailer().display()
            );
            host.config.jailer_bin = host.scratch.file("jailer", script);
            let mode_755 = fs::Permissions::from_mode(0o755);
            fs::set_permissions(&host.config.jailer_bin, mode_755).unwrap();
            let spec = host.idle("vm").limits(limits.clone());
            let spec = spec.cgroup_version(version).pid_namespace(mode);
            let plan = match host.jailer().plan(&spec) {
                Ok(plan) => plan,
                Err(error) if error.kind() == ErrorKind::Unsupported => {
                    testkit::skip(&format!("{TEST} ({version:?}, {limits:?})"), &error.to_string());
                    continue;
                }
                Err(error) => panic!("{error}"),
            };
            let vm = host.jailer().launch(&spec).unwrap();
            let groups = fs::read_to_string(groups).unwrap();
            let born: Vec<_> =
                groups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).collect();
            for leaf in plan.leaf().unwrap().paths() {
                let inside = |path: &&str| leaf.ends_with(path.trim_start_matches('/'));
                let here = born.iter().filter(|path| path.len() > 1).any(inside);
                assert!(here, "{} is none of {born:?}", leaf.display());
            }
            let places = born.iter().filter(|path| path.ends_with("/vm")).count();
            assert_eq!(places, plan.leaf().unwrap().paths().count(), "{born:?}");
            let argv = fs::read_to_string(argv).unwrap();
            assert!(!argv.contains("cgroup"), "{argv}");
            assert_eq!(vm.cgroup().unwrap().members().unwrap(), [vm.pid()]);
            vm.kill().unwrap();
            drop(vm);
            host.assert_clean();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn tiny_memory_limit_spares_the_launcher() {
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        let mut host = Host::new("tiny");
        let limits = Limits::new().memory_max(ByteSize::kib(64));
        let spec = host.idle("vm").limits(limits).cgroup_version(version);
        let error = host.jailer().launch(&spec).unwrap_err();
        if error.kind() == ErrorKind::Unsupported {
            testkit::skip(
                &format!("tiny_memory_limit_spares_the_launcher ({version:?})"),
                &error.to_string(),
            );
            continue;
        }
        let expected = [ErrorKind::EarlyDeath, ErrorKind::Spawn];
        assert!(expected.contains(&error.kind()), "{version:?}: {error}: {error:?}");
        println!("{version:?}: {error}");
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn vm_joins_its_network_namespace() {
    for mode in MODES {
        let mut host = Host::new("netns");
        let netns = testkit::Netns::new(&host.scratch);
        let spec =
            host.idle("netns").network(Network::Namespace(netns.path().into())).pid_namespace(mode);
        let vm = host.jailer().launch(&spec).unwrap();
        assert_eq!(vm.inspect().unwrap().network_namespace, netns.inode());
        vm.kill().unwrap();
        drop((vm, netns));
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn long_ids_and_bases_work() {
    let mut host = long_base("long");
    let id = "i".repeat(64);
    let spec = host.idle(&id);
    let vm = host.jailer().launch(&spec).unwrap();
    assert!(vm.jail_id().as_str() == id && vm.api().unwrap().instance_info().unwrap().id == id);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn daemonized_vms_are_killed() {
    for mode in [PidNamespace::ByJailer, PidNamespace::ByLauncher, PidNamespace::Host] {
        let mut host = Host::new("daemon");
        let spec: JailSpec = host.idle("daemon").pid_namespace(mode).daemonize();
        let vm = match host.jailer().launch(&spec) {
            Ok(vm) => vm,
            // A daemon forks: it would not be PID 1 of the launcher's namespace.
            Err(error) if mode == PidNamespace::ByLauncher => {
                assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
                continue;
            }
            Err(error) => panic!("{mode:?}: {error}: {error:?}"),
        };
        assert_confined(&vm, mode);
        vm.kill().unwrap();
        drop(vm);
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn shutdown_asks_then_kills() {
    let mut host = Host::new("shutdown");
    let spec = host.idle("listens");
    let vm = host.jailer().launch(&spec).unwrap();
    // Asked before it listens it would not hear.
    assert_says_hello(&vm);
    let exit = vm.shutdown(Duration::from_secs(60)).unwrap();
    assert!(exit.success(), "{exit:?}");
    assert_eq!(vm.wait().unwrap(), exit, "an ended VM stays ended");
    assert_eq!(vm.shutdown(Duration::ZERO).unwrap(), exit);
    drop(vm);

    let spec = host.deaf("does-not");
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let exit = vm.shutdown(Duration::from_millis(200)).unwrap();
    assert_eq!(exit.status, ExitStatus::Signaled(9));
    drop(vm);
    host.assert_clean();
}

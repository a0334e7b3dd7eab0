//! The capabilities that each verb needs, of root with fewer and of a user with some: docs/operations.md lists them.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use microvm_runtime::{
    ByteSize, Drive, ErrorKind, JailSpec, JailState, Jailer, Limits, SnapshotOptions, User, Vm,
    VmRuntimeResult,
};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, capabilities, set_capabilities_secure_bits,
    set_no_new_privs,
};
use testkit::{become_user, with_effective};

use crate::host::Host;

/// A user that is not root, and a further group of theirs.
const USER: u32 = 52_100;
const GROUP: u32 = 52_199;

/// The least set with which a VM lives and is removed, and a word of each reason.
const LEAST: [(CapabilitySet, &str, &str); 9] = [
    (CapabilitySet::CHOWN, "CAP_CHOWN", "given to its uid"),
    (CapabilitySet::DAC_OVERRIDE, "CAP_DAC_OVERRIDE", "belong to root and to the VM's uid"),
    (CapabilitySet::FOWNER, "CAP_FOWNER", "sticky"),
    (CapabilitySet::MKNOD, "CAP_MKNOD", "device nodes"),
    (CapabilitySet::SETUID, "CAP_SETUID", "switches to the VM's uid"),
    (CapabilitySet::SETGID, "CAP_SETGID", "switches to the VM's gid"),
    (CapabilitySet::SYS_ADMIN, "CAP_SYS_ADMIN", "namespaces"),
    (CapabilitySet::SYS_PTRACE, "CAP_SYS_PTRACE", "recognised"),
    (CapabilitySet::KILL, "CAP_KILL", "another uid"),
];

fn least() -> CapabilitySet {
    LEAST.iter().fold(CapabilitySet::empty(), |set, (capability, ..)| set | *capability)
}

/// Runs the test again as `uid` with these capabilities, and returns the output.
fn again_as(test: &str, uid: u32, set: CapabilitySet) -> String {
    let role = format!("become {uid} {}", set.bits());
    let output = testkit::reenter(&format!("capabilities::{test}"), role).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "uid {uid}, {set:?}: {text}\n{stderr}");
    text
}

/// Plays the part of [`again_as`]: becomes the user, and executes the test once more. Returns true in that one.
fn played(test: &str) -> bool {
    let Some(role) = testkit::role() else { return false };
    if role == "user" {
        return true;
    }
    let mut words = role.split(' ').skip(1).map(|word| word.parse::<u64>().unwrap());
    let (uid, set) = (words.next().unwrap(), words.next().unwrap());
    become_user(u32::try_from(uid).unwrap(), GROUP, CapabilitySet::from_bits_retain(set));
    let status = testkit::reenter(&format!("capabilities::{test}"), "user").status().unwrap();
    std::process::exit(i32::from(!status.success()));
}

/// A VM with one of each drive, a uid of a range, and limits where the host has v1.
fn whole(host: &mut Host) -> JailSpec {
    host.config.cgroup_v2 = !Path::new("/sys/fs/cgroup/memory").exists();
    let [private, shared, kept] =
        ["private", "shared", "kept"].map(|name| host.scratch.file(name, vec![1; 8192]));
    host.idle("vm")
        .limits(Limits::new().memory_max(ByteSize::mib(512)).pids_max(64))
        .user(User::Leased { first: 56_000, last: 56_009 })
        .drive(Drive::private("private", private))
        .drive(Drive::read_only("shared", shared))
        .drive(Drive::persistent("kept", kept))
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_least_set_is_enough() {
    let test = "the_least_set_is_enough";
    if !played(test) {
        for uid in [0, USER] {
            let said = again_as(test, uid, least());
            assert!(said.contains("lived"), "{said}");
        }
        return;
    }
    let mut host = Host::new("least");
    let spec = whole(&mut host);
    let jailer = host.jailer();
    let vm = jailer.launch(&spec).unwrap();
    assert_confined(&vm);
    vm.inspect().unwrap();
    vm.stats().unwrap();
    assert_eq!(jailer.list().unwrap().jails.len(), 1);
    drop(vm);
    let vm = jailer.adopt("vm").unwrap();
    vm.api().unwrap();
    jailer.sweep().unwrap();
    // As the VM could: nobody but its uid, or who has CAP_FOWNER, may remove a name from such a directory.
    let root = host.config.chroot_base.join("firecracker/vm/root");
    let _ = Command::new("chmod").arg("1777").arg(&root).status().unwrap();
    vm.shutdown(Duration::from_secs(30)).unwrap();
    drop(vm);
    jailer.teardown("vm").unwrap();
    host.assert_clean();
    println!("lived");
}

/// Asserts that the VMM has no capability and none of the launcher's groups.
#[track_caller]
fn assert_confined(vm: &Vm) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vm.pid())).unwrap();
    let field = |key: &str| {
        status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).unwrap().trim()
    };
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("Groups"), "");
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_missing_capability_is_named() {
    let test = "each_missing_capability_is_named";
    if played(test) {
        let has = capabilities(None).unwrap().effective;
        let mut host = Host::new("missing");
        let spec = whole(&mut host);
        let error = host.jailer().launch(&spec).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Privilege, "{error}");
        for (capability, name, reason) in LEAST {
            let named = error.to_string().contains(&format!("{name} is missing"));
            assert_eq!(named, !has.contains(capability), "{name}: {error}");
            assert_eq!(error.to_string().contains(reason), named, "{reason}: {error}");
        }
        assert!(!host.config.chroot_base.exists(), "it was checked before anything was touched");
        println!("{error}");
        return;
    }
    for uid in [0, USER] {
        for (capability, name, _) in LEAST {
            let said = again_as(test, uid, CapabilitySet::all() & !capability & permitted());
            assert!(said.contains(name), "{said}");
        }
        let said = again_as(test, uid, CapabilitySet::empty());
        assert!(LEAST.iter().all(|(_, name, _)| said.contains(name)), "{said}");
    }
}

fn permitted() -> CapabilitySet {
    capabilities(None).unwrap().permitted
}

/// A verb and the needed capabilities: the verb works with exactly this set, and fails without any single capability.
type Verb = (&'static str, CapabilitySet, fn(&mut Scene) -> VmRuntimeResult<()>);

/// A running VM and a `Jailer`, for one verb.
struct Scene {
    jailer: Jailer,
    spec: JailSpec,
    vm: Option<Vm>,
}

impl Scene {
    fn vm(&self) -> &Vm {
        self.vm.as_ref().unwrap()
    }
}

const NEEDS_TO_READ: CapabilitySet = CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::SYS_PTRACE);
const NEEDS_TO_END: CapabilitySet = NEEDS_TO_READ
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SYS_ADMIN)
    .union(CapabilitySet::CHOWN);

const VERBS: [Verb; 11] = [
    ("plan", CapabilitySet::empty(), |scene| scene.jailer.plan(&scene.spec).map(drop)),
    ("list", CapabilitySet::SYS_PTRACE.union(CapabilitySet::SYS_ADMIN), |scene| {
        scene.jailer.list().map(drop)
    }),
    ("inspect", NEEDS_TO_READ, |scene| scene.vm().inspect().map(drop)),
    ("stats", CapabilitySet::SYS_ADMIN, |scene| scene.vm().stats().map(drop)),
    ("api", CapabilitySet::DAC_OVERRIDE, |scene| scene.vm().api().map(drop)),
    ("adopt", NEEDS_TO_READ.union(CapabilitySet::SYS_ADMIN), |scene| {
        scene.vm = None;
        scene.vm = Some(scene.jailer.adopt("vm")?);
        Ok(())
    }),
    (
        "snapshot",
        CapabilitySet::DAC_OVERRIDE.union(CapabilitySet::FOWNER).union(CapabilitySet::SYS_ADMIN),
        |scene| {
            let dir = scene.jailer.config().chroot_base.with_file_name("taken");
            scene.vm().snapshot(dir, &SnapshotOptions::new())?.remove()
        },
    ),
    ("sweep", NEEDS_TO_END, |scene| scene.jailer.sweep().map(drop)),
    ("kill", CapabilitySet::KILL.union(CapabilitySet::SYS_ADMIN), |scene| {
        scene.vm().kill().map(drop)
    }),
    ("teardown", NEEDS_TO_END, |scene| {
        scene.vm = None;
        scene.jailer.teardown("vm")
    }),
    (
        "prepare",
        CapabilitySet::CHOWN
            .union(CapabilitySet::DAC_OVERRIDE)
            .union(CapabilitySet::FOWNER)
            .union(CapabilitySet::SYS_ADMIN),
        |scene| scene.jailer.plan(&scene.spec)?.prepare(&Default::default()).map(drop),
    ),
];

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_verb_needs_its_own_set() {
    let test = "each_verb_needs_its_own_set";
    if !played(test) {
        for uid in [0, USER] {
            let said = again_as(test, uid, least());
            assert!(said.contains("tried"), "{said}");
        }
        return;
    }
    let mut host = Host::new("verbs");
    let spec = whole(&mut host);
    let jailer = host.jailer();
    for (name, needs, verb) in VERBS {
        for (capability, missing, _) in LEAST.iter().filter(|(set, ..)| needs.contains(*set)) {
            let mut scene = scene(&jailer, &spec, name);
            let tried = with_effective(least() & !*capability, || verb(&mut scene));
            match tried {
                Err(error) => {
                    assert_eq!(
                        error.kind(),
                        ErrorKind::Privilege,
                        "{name} without {missing}: {error}"
                    );
                    assert!(
                        error.to_string().contains(&format!("{missing} is missing")),
                        "{name}: {error}"
                    );
                }
                // The killed VMM may have left the control group before the group's mark is read: nothing else is to be
                // killed then.
                Ok(()) => {
                    assert!(name == "kill" && *missing == "CAP_SYS_ADMIN", "{name}: {missing}");
                    assert!(scene.vm().cgroup().unwrap().is_empty().unwrap());
                }
            }
            jailer.teardown("vm").unwrap_or_else(|error| {
                drop(scene.vm.take());
                jailer.teardown("vm").unwrap_or_else(|_| panic!("{name}: {error}"));
            });
        }
        let mut scene = scene(&jailer, &spec, name);
        with_effective(needs, || verb(&mut scene))
            .unwrap_or_else(|error| panic!("{name} with {needs:?}: {error}"));
        drop(scene);
        jailer.teardown("vm").unwrap();
    }
    host.assert_clean();
    println!("tried");
}

fn scene(jailer: &Jailer, spec: &JailSpec, verb: &str) -> Scene {
    let vm = (!["plan", "prepare"].contains(&verb)).then(|| jailer.launch(spec).unwrap());
    Scene { jailer: jailer.clone(), spec: spec.clone(), vm }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_launch_without_a_capability_leaves_nothing() {
    let mut host = Host::new("prepared");
    let spec = whole(&mut host);
    for (capability, name, _) in LEAST {
        let prepared = host.jailer().plan(&spec).unwrap().prepare(&Default::default()).unwrap();
        let error = with_effective(permitted() & !capability, || prepared.launch()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Privilege, "{error}");
        assert!(error.to_string().contains(name), "{error}");
        // A removal that lacks a capability may leave the jail, and says so; nothing runs in it.
        for jail in host.jailer().list().unwrap().jails {
            assert_eq!(jail.state, JailState::Stopped, "{name}");
        }
        host.jailer().teardown("vm").unwrap();
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn no_new_privileges_is_no_obstacle() {
    let test = "no_new_privileges_is_no_obstacle";
    if !played(test) {
        for uid in [0, USER] {
            assert!(again_as(test, uid, least()).contains("lived"));
        }
        return;
    }
    set_no_new_privs(true).unwrap();
    let mut host = Host::new("nnp");
    let spec = whole(&mut host);
    let vm = host.jailer().launch(&spec).unwrap();
    assert_confined(&vm);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
    println!("lived");
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_root_without_capabilities_is_named() {
    let test = "a_root_without_capabilities_is_named";
    if testkit::role().as_deref() != Some("noroot") {
        let output = testkit::reenter(&format!("capabilities::{test}"), "noroot").output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && said.contains("SECBIT_NOROOT"), "{said}");
        return;
    }
    set_capabilities_secure_bits(CapabilitiesSecureBits::NO_ROOT).unwrap();
    let mut host = Host::new("noroot");
    let spec = host.idle("vm");
    let error = host.jailer().launch(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Privilege);
    println!("{error}");
}

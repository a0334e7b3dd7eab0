//! Rows 10 to 14 of the threat model: bad input is refused by name, before anything is touched.

use std::path::{Path, PathBuf};

use jail_cmd::CgroupSetting;
use microvm_runtime::{
    Boot, ByteSize, Drive, ErrorKind, JailId, JailSpec, Jailer, JailerConfig, Limits, Network,
    NetworkInterface, User, VmRuntimeError,
};
use testkit::{Binaries, Canary, Scratch};

/// A host nobody may touch: planning needs no privilege and changes nothing.
struct Untouched {
    scratch: Scratch,
    binaries: Binaries,
    canary: Canary,
}

impl Untouched {
    fn new() -> Self {
        let scratch = Scratch::new("bad-input");
        for name in ["vmlinux", "disk.img"] {
            let _ = scratch.file(name, name);
        }
        let canary = Canary::take(scratch.path());
        Self { scratch, binaries: Binaries::find(), canary }
    }

    fn config(&self) -> JailerConfig {
        JailerConfig {
            jailer_bin: self.binaries.jailer().to_owned(),
            uid: 53_001,
            gid: 53_001,
            chroot_base: self.scratch.join("base"),
            cgroup_parent: "microvm-test".to_owned(),
            cgroup_v2: true,
            numa_node: None,
        }
    }

    fn spec(&self, vm_id: &str) -> JailSpec {
        JailSpec::new(vm_id, self.binaries.firecracker()).kernel(self.scratch.join("vmlinux"))
    }

    fn disk(&self) -> PathBuf {
        self.scratch.join("disk.img")
    }

    /// Asserts that the spec is refused by a message with `word`, and that nothing was touched.
    #[track_caller]
    fn refuses(&self, spec: &JailSpec, word: &str) {
        self.refuses_with(&self.config(), spec, word);
    }

    #[track_caller]
    fn refuses_with(&self, config: &JailerConfig, spec: &JailSpec, word: &str) {
        let VmRuntimeError::Jailer(failure) = Jailer::new(config.clone()).launch(spec).unwrap_err()
        else {
            panic!("another variant");
        };
        assert_eq!(failure.kind(), ErrorKind::InvalidInput, "{}", &*failure);
        assert!(failure.contains(word), "{word:?} is not named: {}", &*failure);
        self.canary.assert_same();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_10_ids() {
    let long = "a".repeat(65);
    for bad in
        ["../x", "a/b", "nul\0byte", "", &long, "é", "-h", "--", "--daemonize", "a_b", "a.b", "-"]
    {
        let error = bad.parse::<JailId>().unwrap_err();
        let named = bad.escape_debug().to_string();
        assert!(error.to_string().contains(&named) || bad.is_empty(), "{named}: {error}");
        // As a vm id each but the empty one is mapped to an id that is not refused.
        if !bad.is_empty() {
            let id = JailId::for_vm(bad).unwrap();
            assert_eq!(id.as_str().parse::<JailId>().unwrap(), id);
        }
    }
    let host = Untouched::new();
    host.refuses(&host.spec(""), "empty");
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_11_ids_never_collide() {
    let ids = ["a/b", "a_b", "a.b", "a b", "a-b", "A-b", "é", "e", "a/b/", "a--b"];
    let mapped: std::collections::HashSet<_> =
        ids.iter().map(|id| JailId::for_vm(id).unwrap()).collect();
    assert_eq!(mapped.len(), ids.len());
    // What a mapped id looks like cannot be claimed by asking for it.
    let mapped = JailId::for_vm("a/b").unwrap();
    assert_ne!(JailId::for_vm(mapped.as_str()).unwrap(), mapped);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_12_drive_names() {
    let host = Untouched::new();
    let exec_name = host.binaries.firecracker().file_name().unwrap().to_str().unwrap().to_owned();
    let pid_file = format!("{exec_name}.pid");
    for name in [
        "vmlinux", &exec_name, &pid_file, "api.sock", "dev", "run", "old_root", "vm.json", "..",
        ".", "", "a/b", "nul\0",
    ] {
        let spec = host.spec("vm").drive(Drive::private(name, host.disk()));
        host.refuses(&spec, &name.escape_debug().to_string());
    }
    let twice = host
        .spec("vm")
        .drive(Drive::private("d", host.disk()))
        .drive(Drive::read_only("d", host.disk()));
    host.refuses(&twice, "d");
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_13_argv_injection() {
    let host = Untouched::new();
    for (file, value) in [
        ("cpu.shares", ""),
        ("io.max", "8:0 rbps=1"),
        ("../x.max", "1"),
        ("cpu.shares", "1\n2"),
        ("--no-seccomp", "1"),
    ] {
        assert!(CgroupSetting::new(file, value).is_err(), "{file}={value}");
    }
    for parent in ["--daemonize", "../up", "/abs", "a/./b", "", "a\0b"] {
        let config = JailerConfig { cgroup_parent: parent.to_owned(), ..host.config() };
        host.refuses_with(&config, &host.spec("vm"), &parent.escape_debug().to_string());
    }
    for base in ["relative", "/has/../dots", "/nul\0"] {
        let config = JailerConfig { chroot_base: PathBuf::from(base), ..host.config() };
        host.refuses_with(&config, &host.spec("vm"), &base.escape_debug().to_string());
    }
    host.refuses(&host.spec("vm").network(Network::Namespace("relative".into())), "relative");
    host.refuses(&host.spec("vm").network(Network::Namespace(host.disk())), "disk.img");
    host.refuses(
        &host.spec("vm").drive(Drive::private("d", Path::new("relative.img"))),
        "relative.img",
    );
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_14_users() {
    let host = Untouched::new();
    for (uid, gid, word) in
        [(0, 5, "0"), (u32::MAX, 5, "4294967295"), (5, 0, "0"), (5, u32::MAX, "4294967295")]
    {
        host.refuses_with(&JailerConfig { uid, gid, ..host.config() }, &host.spec("vm"), word);
        host.refuses(&host.spec("vm").user(User::Fixed { uid, gid }), word);
    }
    host.refuses(&host.spec("vm").user(User::Leased { first: 10, last: 9 }), "10..=9");
    host.refuses(&host.spec("vm").user(User::Leased { first: 0, last: 9 }), "0");
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn values_of_limits_and_boot() {
    let host = Untouched::new();
    let limited = |limits| host.spec("vm").limits(limits);
    host.refuses(&limited(Limits::new().cpus(0.0)), "cpu");
    host.refuses(&limited(Limits::new().cpus(f64::NAN)), "cpu");
    host.refuses(&limited(Limits::new().memory_max(ByteSize::bytes(0))), "memory");
    let boots = |boot| host.spec("vm").boot(boot);
    host.refuses(&boots(Boot::new().vcpus(0).memory_mib(128)), "vCPU");
    host.refuses(&boots(Boot::new().vcpus(33).memory_mib(128)), "33");
    host.refuses(&boots(Boot::new().vcpus(1).memory_mib(0)), "mem");
    host.refuses(
        &boots(
            Boot::new()
                .vcpus(1)
                .memory_mib(128)
                .network(NetworkInterface::new("eth0", "a-name-longer-than-15")),
        ),
        "a-name-longer-than-15",
    );
    host.refuses(&boots(Boot::new().vcpus(1).memory_mib(128).vsock(2)), "2");
    host.refuses(
        &JailSpec::new("vm", host.binaries.firecracker())
            .boot(Boot::new().vcpus(1).memory_mib(128)),
        "kernel",
    );
    host.refuses(&host.spec("vm").no_api(), "boot");
}

//! The 0.4 API, row by row, used like the crates downstream do.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

// The paths that callers of the 0.4 API name them by.
use microvm_runtime::error::{VmRuntimeError, VmRuntimeResult};
use microvm_runtime::jailer::{Jailer, JailerConfig, VmJail};
use microvm_runtime::{DeviceNodes, ErrorKind, safe_vm_id};
use testkit::{Binaries, Canary, GUEST_LINE, Scratch, unique};

const UID: u32 = 51_001;
const GID: u32 = 51_002;

fn config(base: &Path) -> JailerConfig {
    // A literal without `..Default`: no field may be added.
    JailerConfig {
        jailer_bin: PathBuf::from("/usr/bin/jailer"),
        uid: UID,
        gid: GID,
        chroot_base: base.to_owned(),
        cgroup_parent: unique("compat"),
        cgroup_v2: true,
        numa_node: None,
    }
}

fn argv(command: &std::process::Command) -> Vec<String> {
    command.get_args().map(|item| item.to_str().expect("argv is UTF-8").to_owned()).collect()
}

/// Returns the message, matched like code downstream does.
fn message(result: VmRuntimeResult<impl std::fmt::Debug>) -> String {
    match result {
        Err(VmRuntimeError::Jailer(msg)) => String::from(&*msg),
        other => panic!("expected a jailer error, got {other:?}"),
    }
}

/// A host's images: root-only golden files that no VM may change.
struct Host {
    scratch: Scratch,
    images: PathBuf,
    jailer: Jailer,
}

impl Host {
    fn new() -> Self {
        let scratch = Scratch::new("compat");
        let images = scratch.dir("images");
        for (name, content) in
            [("vmlinux", "kernel"), ("golden.ext4", "rootfs"), ("data.img", "data")]
        {
            let _ = scratch.file(Path::new("images").join(name), content);
        }
        let jailer = Jailer::new(config(&scratch.join("base")));
        Self { scratch, images, jailer }
    }

    fn image(&self, name: &str) -> PathBuf {
        self.images.join(name)
    }

    fn prepare(&self, vm_id: &str) -> VmRuntimeResult<VmJail> {
        self.jailer.prepare(
            vm_id,
            &self.image("vmlinux"),
            &self.image("golden.ext4"),
            &[self.image("data.img")],
        )
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        testkit::remove_cgroup(&self.jailer.config().cgroup_parent);
    }
}

#[test]
fn defaults_match_the_old_api() {
    let default = JailerConfig::default();
    assert_eq!(default.jailer_bin, Path::new("/usr/bin/jailer"));
    assert_eq!((default.uid, default.gid), (123, 100));
    assert_eq!(default.chroot_base, Path::new("/srv/jailer"));
    assert_eq!(default.cgroup_parent, "microvm.slice");
    assert!(default.cgroup_v2);
    assert_eq!(default.numa_node, None);
    fn has_the_old_traits<T: std::fmt::Debug + Clone + Default>() {}
    has_the_old_traits::<JailerConfig>();
}

#[test]
fn jailer_returns_its_configuration() {
    let jailer = Jailer::new(config(Path::new("/srv/j"))).clone();
    assert_eq!(jailer.config().uid, UID);
    assert!(format!("{jailer:?}").contains("/srv/j"));
}

#[test]
fn chroot_for_is_pure() {
    let jailer = Jailer::new(config(Path::new("/does/not/exist")));
    assert_eq!(jailer.chroot_for("vm-1"), Path::new("/does/not/exist/firecracker/vm-1/root"));
    let slash = jailer.chroot_for("a/b");
    let underscore = jailer.chroot_for("a_b");
    assert_ne!(slash, underscore, "two tenants share a jail");
    assert_eq!(
        slash.parent().and_then(Path::parent),
        Some(Path::new("/does/not/exist/firecracker"))
    );
}

#[test]
fn safe_vm_id_maps_each_character() {
    assert_eq!(safe_vm_id("ünicode"), "_nicode");
    assert_eq!(safe_vm_id("vm_1-A"), "vm_1-A");
    assert_eq!(safe_vm_id("../x"), "___x");
}

#[test]
fn empty_id_is_refused() {
    let jailer = Jailer::new(config(Path::new("/does/not/exist")));
    let kernel = Path::new("/does/not/exist/vmlinux");
    let jail = VmJail {
        chroot_path: PathBuf::from("/does/not/exist/firecracker/root"),
        api_socket_in_chroot: PathBuf::from("/api.sock"),
        api_socket_on_host: PathBuf::from("/does/not/exist/firecracker/root/api.sock"),
    };
    for text in [
        message(jailer.prepare("", kernel, kernel, &[])),
        message(jailer.build_command("", &jail, Path::new("/usr/bin/firecracker"))),
        message(jailer.teardown("")),
    ] {
        assert!(text.contains("empty"), "{text}");
    }
}

/// Returns the value for the jail that a caller would have, without preparing the jail.
fn jail_of(jailer: &Jailer, vm_id: &str) -> VmJail {
    let chroot_path = jailer.chroot_for(vm_id);
    VmJail {
        api_socket_in_chroot: PathBuf::from("/api.sock"),
        api_socket_on_host: chroot_path.join("api.sock"),
        chroot_path,
    }
}

#[test]
fn argv_keeps_its_order() {
    let mut config = config(Path::new("/srv/j"));
    config.cgroup_parent = "vms.slice".to_owned();
    let firecracker = Path::new("/does/not/exist/firecracker");
    let build = |config: JailerConfig| {
        let jailer = Jailer::new(config);
        let command = jailer.build_command("vm-1", &jail_of(&jailer, "vm-1"), firecracker).unwrap();
        assert_eq!(command.get_program(), "/usr/bin/jailer");
        argv(&command)
    };
    let want = |version: &str, parent: &str, numa: &[&str]| {
        let head = [
            "--id",
            "vm-1",
            "--exec-file",
            "/does/not/exist/firecracker",
            "--uid",
            "51001",
            "--gid",
            "51002",
        ];
        let base =
            ["--chroot-base-dir", "/srv/j", "--cgroup-version", version, "--parent-cgroup", parent];
        let tail = ["--new-pid-ns", "--", "--api-sock", "/api.sock"];
        head.iter()
            .chain(&base)
            .chain(numa)
            .chain(&tail)
            .map(|item| (*item).to_owned())
            .collect::<Vec<_>>()
    };
    // v2: a leaf for this VM alone; the 0.4 API joined all VMs to one group.
    assert_eq!(build(config.clone()), want("2", "vms.slice/vm-1", &[]));
    config.cgroup_v2 = false;
    assert_eq!(build(config.clone()), want("1", "vms.slice", &[]));
    // A NUMA node: `--numa-node` never existed.
    config.numa_node = Some(0);
    let cpus =
        fs::read_to_string("/sys/devices/system/node/node0/cpulist").expect("node 0 has CPUs");
    let cpus = format!("cpuset.cpus={}", cpus.trim());
    let numa = ["--cgroup", "cpuset.mems=0", "--cgroup", &cpus];
    assert_eq!(build(config.clone()), want("1", "vms.slice", &numa));
    config.cgroup_v2 = true;
    assert_eq!(build(config), want("2", "vms.slice", &numa));
}

#[test]
fn seccomp_filter_stays_on() {
    let jailer = Jailer::new(config(Path::new("/srv/j")));
    let command = jailer
        .build_command("vm-1", &jail_of(&jailer, "vm-1"), Path::new("/opt/firecracker"))
        .unwrap();
    assert!(!argv(&command).iter().any(|item| item.contains("seccomp")));
}

#[test]
fn build_command_refuses_foreign_jails() {
    let jailer = Jailer::new(config(Path::new("/srv/j")));
    let jail = jail_of(&jailer, "vm-1");
    let relative = message(jailer.build_command("vm-1", &jail, Path::new("firecracker")));
    assert!(relative.contains("absolute"), "{relative}");
    let other = message(jailer.build_command("vm-2", &jail, Path::new("/opt/firecracker")));
    assert!(other.contains("/srv/j/firecracker/vm-1/root"), "{other}");
    // The jailer would look for the jail in `<base>/firecracker-v1.16.1`.
    let renamed =
        message(jailer.build_command("vm-1", &jail, Path::new("/opt/firecracker-v1.16.1")));
    assert!(renamed.contains("firecracker-v1.16.1") && renamed.contains("canonical"), "{renamed}");
}

#[test]
fn bad_users_are_named() {
    for (change, word) in [
        ((|c: &mut JailerConfig| c.uid = 0) as fn(&mut JailerConfig), "0"),
        (|c| c.uid = u32::MAX, "4294967295"),
        (|c| c.gid = 0, "0"),
        (|c| c.cgroup_parent = "../up".to_owned(), "../up"),
        (|c| c.cgroup_parent = "/abs".to_owned(), "/abs"),
        (|c| c.chroot_base = PathBuf::from("relative"), "relative"),
    ] {
        let mut config = config(Path::new("/srv/j"));
        change(&mut config);
        let jailer = Jailer::new(config);
        let result =
            jailer.build_command("vm-1", &jail_of(&jailer, "vm-1"), Path::new("/opt/firecracker"));
        assert_eq!(
            result.as_ref().map_err(VmRuntimeError::kind).err(),
            Some(ErrorKind::InvalidInput)
        );
        let text = message(result);
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn missing_source_is_named() {
    let scratch = Scratch::new("compat");
    let base = scratch.join("base");
    let jailer = Jailer::new(config(&base));
    let there = scratch.file("there", "x");
    let missing = scratch.join("missing.img");
    for (kernel, rootfs, extra) in
        [(&missing, &there, &there), (&there, &missing, &there), (&there, &there, &missing)]
    {
        let error =
            jailer.prepare("vm-1", kernel, rootfs, std::slice::from_ref(extra)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(message(Err::<(), _>(error)).contains("missing.img"));
        assert!(!base.exists(), "the base was made before the sources were looked at");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn prepare_is_idempotent() {
    let host = Host::new();
    let canary = Canary::take(&host.images);
    let jail = host.prepare("vm-1").unwrap();
    assert_eq!(jail.chroot_path, host.jailer.chroot_for("vm-1"));
    assert_eq!(jail.api_socket_in_chroot, Path::new("/api.sock"));
    assert_eq!(jail.api_socket_on_host, jail.chroot_path.join("api.sock"));
    let inodes = || {
        ["vmlinux", "rootfs.ext4", "data.img"]
            .map(|name| fs::metadata(jail.chroot_path.join(name)).unwrap().ino())
    };
    for (name, content) in [("vmlinux", "kernel"), ("rootfs.ext4", "rootfs"), ("data.img", "data")]
    {
        assert_eq!(fs::read_to_string(jail.chroot_path.join(name)).unwrap(), content);
    }
    // Writable files are the uid's own inodes; the shared kernel is root's.
    let rootfs = fs::metadata(jail.chroot_path.join("rootfs.ext4")).unwrap();
    assert_eq!((rootfs.uid(), rootfs.gid(), rootfs.nlink()), (UID, GID, 1));
    assert_eq!(fs::metadata(jail.chroot_path.join("vmlinux")).unwrap().uid(), 0);
    let before = inodes();
    let again = host.prepare("vm-1").unwrap();
    assert_eq!(again.chroot_path, jail.chroot_path);
    assert_eq!(inodes(), before, "the same sources were staged anew");
    host.jailer.teardown("vm-1").unwrap();
    canary.assert_same();
}

/// Sends one request without an HTTP library, and returns the status line of the answer.
fn ask(socket: &Path, request: &str, body: &str) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    write!(
        stream,
        "{request} HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )?;
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line)?;
    Ok(line)
}

/// Removes Firecracker's log lines, which may interrupt a line of the guest's console:
/// `2026-11-26T14:29:03.379236465 [vm-1:fc_api] …`.
fn without_log(lines: &[String]) -> String {
    let time = "2026-11-26T14:29:03.379236465".len();
    let guests = |line: &String| match line.find(" [vm-1:") {
        Some(at) => line[..at.saturating_sub(time)].to_owned(),
        None => format!("{line}\n"),
    };
    lines.iter().map(guests).collect()
}

/// The three calls of the 0.4 API boot a VM in the installed jailer and Firecracker.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn three_calls_boot_a_vm() {
    let binaries = Binaries::find();
    let mut host = Host::new();
    let mut config = host.jailer.config().clone();
    config.jailer_bin = binaries.jailer().to_owned();
    // Told of a version that the host has not, no jailer starts.
    config.cgroup_v2 = testkit::mounts::all().iter().any(|mount| mount.fstype == "cgroup2");
    host.jailer = Jailer::new(config);
    // Under the only name in the layout of the 0.4 API.
    let firecracker = host.scratch.dir("bin").join("firecracker");
    fs::copy(binaries.firecracker(), &firecracker).unwrap();
    let jail =
        host.jailer.prepare("vm-1", &binaries.guest(), &host.image("golden.ext4"), &[]).unwrap();
    let mut command = host.jailer.build_command("vm-1", &jail, &firecracker).unwrap();
    let mut jailer =
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
    let console = jailer.stdout.take().unwrap();
    assert!(jailer.wait().unwrap().success(), "with --new-pid-ns it leaves the VMM behind");

    let socket = &jail.api_socket_on_host;
    let deadline = Instant::now() + Duration::from_secs(60);
    let answer = loop {
        match ask(socket, "GET /", "") {
            Ok(answer) => break answer,
            Err(error) => assert!(Instant::now() < deadline, "no API: {error}"),
        }
        std::thread::yield_now();
    };
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    let pid = fs::read_to_string(jail.chroot_path.join("firecracker.pid")).unwrap();
    let network = |pid: &str| fs::read_link(format!("/proc/{}/ns/net", pid.trim())).unwrap();
    assert_eq!(network(&pid), network("self"), "the network of the 0.4 API is the caller's");
    for (request, body) in [
        ("PUT /boot-source", r#"{"kernel_image_path": "/vmlinux", "boot_args": "reboot=k"}"#),
        (
            "PUT /drives/rootfs",
            r#"{"drive_id": "rootfs", "path_on_host": "/rootfs.ext4", "is_root_device": true, "is_read_only": false}"#,
        ),
        ("PUT /actions", r#"{"action_type": "InstanceStart"}"#),
    ] {
        let answer = ask(socket, request, body).unwrap();
        assert!(answer.starts_with("HTTP/1.1 204"), "{request}: {answer}");
    }
    let said = BufReader::new(console).lines().map_while(Result::ok).collect::<Vec<_>>();
    assert!(without_log(&said).contains(GUEST_LINE), "{said:?}");
    host.jailer.teardown("vm-1").unwrap();
    assert!(!jail.chroot_path.exists());
    assert!(testkit::cgroups_named(&host.jailer.config().cgroup_parent, "vm-1").is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn stale_artifacts_are_replaced() {
    let host = Host::new();
    let jail = host.prepare("vm-1").unwrap();
    let newer = host.scratch.file("newer", "newer rootfs");
    host.jailer.prepare("vm-1", &host.image("vmlinux"), &newer, &[]).unwrap();
    assert_eq!(fs::read_to_string(jail.chroot_path.join("rootfs.ext4")).unwrap(), "newer rootfs");
    assert!(
        !jail.chroot_path.join("data.img").exists(),
        "a drive that was not asked for again stayed"
    );
    host.jailer.teardown("vm-1").unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn golden_images_are_untouched() {
    let host = Host::new();
    for name in ["vmlinux", "golden.ext4"] {
        fs::set_permissions(host.image(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let canary = Canary::take(&host.images);
    let jail = host.prepare("vm-1").unwrap();
    // As the guest would: the drive is written to.
    fs::write(jail.chroot_path.join("rootfs.ext4"), "overwritten").unwrap();
    host.jailer.teardown("vm-1").unwrap();
    canary.assert_same();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn device_nodes_are_optional() {
    let mut host = Host::new();
    let jail = host.prepare("vm-1").unwrap();
    assert!(!jail.chroot_path.join("dev").exists(), "every launch would end in File exists");
    host.jailer.teardown("vm-1").unwrap();

    host.jailer = Jailer::new(host.jailer.config().clone()).device_nodes(DeviceNodes::Precreate);
    let jail = host.prepare("vm-1").unwrap();
    for (path, rdev) in [("dev/kvm", 0xae8), ("dev/net/tun", 0xac8)] {
        let node = fs::symlink_metadata(jail.chroot_path.join(path)).unwrap();
        assert!(node.file_type().is_char_device());
        assert_eq!((node.rdev(), node.uid(), node.gid()), (rdev, UID, GID), "{path}");
    }
    assert_eq!(fs::metadata(&jail.chroot_path).unwrap().uid(), UID);
    host.jailer.teardown("vm-1").unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn ids_never_share_a_jail() {
    let host = Host::new();
    let slash = host.prepare("a/b").unwrap();
    let underscore = host.prepare("a_b").unwrap();
    assert_ne!(slash.chroot_path, underscore.chroot_path);
    host.jailer.teardown("a/b").unwrap();
    assert!(!slash.chroot_path.exists() && underscore.chroot_path.exists());
    host.jailer.teardown("a_b").unwrap();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn teardown_is_idempotent() {
    let host = Host::new();
    host.jailer.teardown("never-was").unwrap();
    let jail = host.prepare("vm-1").unwrap();
    let report = host.jailer.remove("vm-1").unwrap();
    assert!(!jail.chroot_path.parent().unwrap().exists());
    for cgroup in &report.cgroups {
        assert!(!cgroup.exists(), "{} stayed", cgroup.display());
    }
    host.jailer.teardown("vm-1").unwrap();
    assert!(testkit::cgroups_named(&host.jailer.config().cgroup_parent, "vm-1").is_empty());
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn reserved_drive_names_are_refused() {
    let host = Host::new();
    for name in [
        "vmlinux",
        "firecracker",
        "api.sock",
        "dev",
        "run",
        "old_root",
        "firecracker.pid",
        "rootfs.ext4",
    ] {
        let drive = host.scratch.dir("bad").join(name);
        fs::write(&drive, "x").unwrap();
        let result = host.jailer.prepare(
            "vm-1",
            &host.image("vmlinux"),
            &host.image("golden.ext4"),
            &[drive],
        );
        assert_eq!(
            result.as_ref().map_err(VmRuntimeError::kind).err(),
            Some(ErrorKind::InvalidInput),
            "{name}"
        );
        assert!(message(result).contains(name), "{name}");
        assert!(!host.scratch.join("base").exists(), "{name}: something was touched");
    }
}

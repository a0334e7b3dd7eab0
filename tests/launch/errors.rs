//! Every error path of plan, prepare, launch and teardown is provoked; each line that a person reads stands in
//! `errors.golden`, with paths and numbers normalised.
//!
//! After a change of a text: `MICROVM_UPDATE_GOLDEN=1 cargo xtask test-root -p launch-tests errors`, then read the
//! difference.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::time::Duration;

use microvm_runtime::{
    Action, Balloon, Boot, ByteSize, CgroupVersion, Console, CopyOptions, CpuTemplate, DeviceKind,
    DeviceNodes, Drive, Entropy, ErrorKind, HugePages, JailSpec, Jailer, JailerConfig, Limits,
    MemoryHotplug, Mmds, Network, NetworkInterface, Pmem, RateLimiter, ResourceLimit, Serial,
    TokenBucket, User, VmRuntimeError, VmRuntimeResult,
};
use nix::mount::MsFlags;
use serde_json::json;
use testkit::{Tmpfs, kvm_works};

use crate::host::{GID, Host, UID};

/// The path for writing the golden file. Reads come from the binary, because a virtual machine has no sources.
const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/errors.golden");
const KNOWN: &str = include_str!("errors.golden");

/// The errors that were provoked, by the name of the case.
struct Book {
    host: Host,
    lines: BTreeMap<&'static str, String>,
    bad: Vec<String>,
    vms: usize,
}

impl Book {
    fn new(label: &str) -> Self {
        Self { host: Host::new(label), lines: BTreeMap::new(), bad: Vec::new(), vms: 0 }
    }

    /// Returns a spec with a new VM id, so that no case finds remains of another case.
    fn spec(&mut self) -> JailSpec {
        self.vms += 1;
        let id = format!("vm-{}", self.vms);
        self.host.idle(&id)
    }

    #[track_caller]
    fn tell<T>(&mut self, case: &'static str, result: VmRuntimeResult<T>) {
        let Some(error) = self.check(case, result) else {
            return self.bad.push(format!("{case}: no error"));
        };
        let line = self.normalised(&error.to_string());
        assert!(self.lines.insert(case, line).is_none(), "{case} is there twice");
    }

    /// Checks the form of an error, if the result is an error, but not the text, which depends on the host or on
    /// timing.
    fn check<T>(&mut self, case: &str, result: VmRuntimeResult<T>) -> Option<VmRuntimeError> {
        let error = result.err()?;
        let complaints = complaints(&error).into_iter();
        self.bad.extend(complaints.map(|complaint| format!("{case} {complaint}: {error}")));
        Some(error)
    }

    /// Launches `change` of an idle VM's spec.
    #[track_caller]
    fn launch(&mut self, case: &'static str, change: impl FnOnce(JailSpec) -> JailSpec) {
        let spec = self.spec();
        self.tell(case, self.host.jailer().launch(&change(spec)));
    }

    /// Launches an idle VM with `change` of the configuration.
    #[track_caller]
    fn configured(&mut self, case: &'static str, change: impl FnOnce(&mut JailerConfig)) {
        let spec = self.spec();
        let mut config = self.host.config.clone();
        change(&mut config);
        self.tell(case, Jailer::new(config).launch(&spec));
    }

    fn normalised(&self, line: &str) -> String {
        let binaries = &self.host.binaries;
        let firecracker = fs::canonicalize(binaries.firecracker()).unwrap();
        let jailer = fs::canonicalize(binaries.jailer()).unwrap();
        let mut line = line.to_owned();
        for (path, name) in [
            (self.host.scratch.path(), "<dir>"),
            (binaries.firecracker(), "<firecracker>"),
            (&firecracker, "<firecracker>"),
            (binaries.jailer(), "<jailer>"),
            (&jailer, "<jailer>"),
            (Path::new(&self.host.config.cgroup_parent), "<parent>"),
            (&std::env::current_dir().unwrap(), "<cwd>"),
        ] {
            line = line.replace(&path.display().to_string(), name);
        }
        for (before, name) in [
            ("process ", "<pid>"),
            ("processes [", "<pids>"),
            ("vm-", "<n>"),
            ("inode ", "<inode>"),
        ] {
            line = numbers_after(&line, before, name);
        }
        // Where the hierarchy is mounted is the host's affair.
        let line = match line.split_once("/<parent>") {
            Some((before, after)) => {
                let begin = before.rfind(' ').map_or(0, |space| space + 1);
                format!("{}<cgroup>/<parent>{after}", &before[..begin])
            }
            None => line,
        };
        without_marks(&line)
    }

    /// Compares with the golden file, or updates the file if `MICROVM_UPDATE_GOLDEN` is set. The cases of other tests
    /// stay.
    fn close(self) {
        let updates = std::env::var_os("MICROVM_UPDATE_GOLDEN").is_some();
        // Tests that run at once write one file.
        let file =
            updates.then(|| fs::OpenOptions::new().read(true).write(true).open(GOLDEN).unwrap());
        file.iter().for_each(|file| file.lock().unwrap());
        let mut golden = match updates {
            true => read_golden(&fs::read_to_string(GOLDEN).unwrap()),
            false => read_golden(KNOWN),
        };
        let mut differences = String::new();
        for (case, line) in &self.lines {
            let known = golden.insert((*case).to_owned(), line.clone());
            if known.as_deref() != Some(line) {
                let known = known.as_deref().unwrap_or("(not in the file)");
                let _ = write!(differences, "\n{case}\n  golden: {known}\n     now: {line}");
            }
        }
        self.host.assert_clean();
        if updates {
            let file = golden.iter().fold(HEAD.to_owned(), |mut file, (case, line)| {
                let _ = write!(file, "\n{case}\n    {line}\n");
                file
            });
            fs::write(GOLDEN, file).unwrap();
        }
        assert!(self.bad.is_empty(), "{}", self.bad.join("\n"));
        if updates {
            return;
        }
        assert!(differences.is_empty(), "texts changed; set MICROVM_UPDATE_GOLDEN=1:{differences}");
    }
}

const HEAD: &str = "\
# Provoked errors, as a person reads them. Written by errors.rs with MICROVM_UPDATE_GOLDEN=1.
";

fn read_golden(text: &str) -> BTreeMap<String, String> {
    let mut golden = BTreeMap::new();
    let mut case = "";
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        match line.strip_prefix("    ") {
            Some(printed) => drop(golden.insert(case.to_owned(), printed.to_owned())),
            None => case = line,
        }
    }
    golden
}

/// Lists the faults in the form of an error.
fn complaints(error: &VmRuntimeError) -> Vec<&'static str> {
    let line = error.to_string();
    let ends = |text: &str| text.ends_with(['.', '?', '!']);
    [
        ("begins otherwise", !line.starts_with("jailer error: failed to ")),
        ("is no single line", line.chars().any(char::is_control)),
        ("is long", line.len() > 1500),
        ("has no cause", error.cause().is_none()),
        ("has no hint", error.hint().is_none() && !needs_no_hint(&line)),
        ("ends without a full stop", error.hint().is_some() && !ends(&line)),
        ("has an empty part", [": :", ": .", ".. "].iter().any(|part| line.contains(part))),
        ("is repeated by its source", std::error::Error::source(error).is_some()),
    ]
    .into_iter()
    .filter_map(|(complaint, holds)| holds.then_some(complaint))
    .collect()
}

/// Returns true if the error needs no hint: an error text of Firecracker, or the end of a VM.
fn needs_no_hint(line: &str) -> bool {
    line.contains("status 400, ") || line.ends_with("it has ended")
}

/// Replaces the digits that follow `before` with `name`.
fn numbers_after(line: &str, before: &str, name: &str) -> String {
    let mut pieces = line.split(before);
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let rest = piece.trim_start_matches(|c: char| c.is_ascii_digit());
        out.push_str(before);
        out.push_str(if rest.len() < piece.len() { name } else { "" });
        out.push_str(rest);
    }
    out
}

/// Replaces the random 16 hex digits of a staging directory's name.
fn without_marks(line: &str) -> String {
    let mut pieces = line.split(".staging-");
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let end = piece.find('/').unwrap_or(piece.len());
        let (name, rest) = piece.split_at(end);
        let name = name.rsplit_once('-').map_or(name, |(name, _)| name);
        let _ = write!(out, ".staging-{name}-<mark>{rest}");
    }
    out
}

fn boot() -> Boot {
    Boot::new().vcpus(1).memory_mib(128)
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refused_configurations() {
    let mut book = Book::new("errors-config");
    book.configured("config: uid 0", |config| config.uid = 0);
    book.configured("config: uid 4294967295", |config| config.uid = u32::MAX);
    book.configured("config: gid 0", |config| config.gid = 0);
    book.configured("config: jailer missing", |config| {
        config.jailer_bin = "/no/such/jailer".into()
    });
    book.configured("config: jailer not on PATH", |config| {
        config.jailer_bin = "no-such-jailer".into();
    });
    let plain = book.host.scratch.file("plain", "#!/bin/sh\n");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    book.configured("config: jailer not executable", |config| config.jailer_bin.clone_from(&plain));
    book.configured("config: jailer is a directory", |config| config.jailer_bin = "/usr".into());
    let other = book.host.scratch.file("other", "#!/bin/sh\necho \"hello $1\"\n");
    fs::set_permissions(&other, fs::Permissions::from_mode(0o755)).unwrap();
    book.configured("config: jailer is another program", |config| {
        config.jailer_bin.clone_from(&other);
    });
    book.configured("config: base relative", |config| config.chroot_base = "relative".into());
    book.configured("config: base with dots", |config| config.chroot_base = "/srv/../srv".into());
    book.configured("config: base is a file", |config| config.chroot_base.clone_from(&plain));
    let shared = book.host.scratch.dir("shared");
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o775)).unwrap();
    book.configured("config: base writable by its group", |config| {
        config.chroot_base.clone_from(&shared);
    });
    let owned = book.host.scratch.dir("owned");
    chown(&owned, Some(UID), Some(GID)).unwrap();
    book.configured("config: base of another user", |config| config.chroot_base.clone_from(&owned));
    let link = book.host.scratch.join("link");
    symlink(book.host.scratch.dir("real"), &link).unwrap();
    book.configured("config: base is a link", |config| config.chroot_base.clone_from(&link));
    book.configured("config: base in /proc", |config| config.chroot_base = "/proc/1/base".into());
    for (case, parent) in [
        ("config: parent group empty", ""),
        ("config: parent group absolute", "/abs"),
        ("config: parent group goes up", "../up"),
        ("config: parent group like a flag", "--daemonize"),
    ] {
        book.configured(case, |config| config.cgroup_parent = parent.to_owned());
    }
    let (spec, config) =
        (book.spec(), JailerConfig { numa_node: Some(1000), ..book.host.config.clone() });
    let launched = Jailer::new(config).launch(&spec);
    assert!(book.check("config: NUMA node missing", launched).is_some());
    book.close();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refused_specs() {
    let mut book = Book::new("errors-spec");
    let disk = book.host.scratch.file("disk.img", vec![1; 4096]);
    let dir = book.host.scratch.dir("directory");
    let missing = book.host.scratch.join("missing");
    let fifo = book.host.scratch.join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let link = book.host.scratch.join("link");
    symlink(&disk, &link).unwrap();
    let plain = book.host.scratch.file("plain", "text");
    fs::set_permissions(&plain, fs::Permissions::from_mode(0o644)).unwrap();
    let bytes = book.host.scratch.path().join(std::ffi::OsStr::from_bytes(b"disk-\xff.img"));
    fs::copy(&disk, &bytes).unwrap();

    let kernel = book.host.image("idle");
    let exec = |exec_file: &Path| JailSpec::new("vm", exec_file).kernel(&kernel).boot(boot());
    let jailer = book.host.jailer();
    book.tell("spec: vm id empty", jailer.launch(&JailSpec::new("", "/bin/true")));
    book.tell("spec: exec file not on PATH", jailer.launch(&exec(Path::new("no-such-vmm"))));
    book.tell("spec: exec file missing", jailer.launch(&exec(&missing)));
    book.tell("spec: exec file not executable", jailer.launch(&exec(&plain)));
    book.tell("spec: exec file is a directory", jailer.launch(&exec(&dir)));
    book.launch("spec: kernel relative", |spec| spec.kernel("vmlinux"));
    book.launch("spec: kernel missing", |spec| spec.kernel(&missing));
    book.launch("spec: kernel is a directory", |spec| spec.kernel(&dir));
    book.launch("spec: kernel is a FIFO", |spec| spec.kernel(&fifo));
    book.launch("spec: kernel path not UTF-8", |spec| spec.kernel(&bytes));
    book.launch("spec: initrd missing", |spec| spec.initrd(&missing));
    book.launch("spec: drive missing", |spec| spec.drive(Drive::private("data", &missing)));
    book.launch("spec: drive relative", |spec| spec.drive(Drive::private("data", "disk.img")));
    book.launch("spec: drive is a link", |spec| spec.drive(Drive::private("data", &link)));
    book.launch("spec: drive is a directory", |spec| spec.drive(Drive::read_only("data", &dir)));
    book.launch("spec: drive path not UTF-8", |spec| spec.drive(Drive::private("data", &bytes)));
    book.launch("spec: drive of size 0 with content", |spec| {
        spec.drive(Drive::private("data", "/proc/version"))
    });
    book.launch("spec: drive name twice", |spec| {
        spec.drive(Drive::private("data", &disk)).drive(Drive::read_only("data", &disk))
    });
    book.launch("spec: drive name reserved", |spec| spec.drive(Drive::private("dev", &disk)));
    book.launch("spec: drive name with a slash", |spec| spec.drive(Drive::private("a/b", &disk)));
    book.launch("spec: block device is a file", |spec| {
        spec.drive(Drive::block_device("data", &disk))
    });
    book.launch("spec: uid 0", |spec| spec.user(User::Fixed { uid: 0, gid: 5 }));
    book.launch("spec: uids reversed", |spec| spec.user(User::Leased { first: 10, last: 9 }));
    book.launch("spec: netns relative", |spec| spec.network(Network::Namespace("ns".into())));
    book.launch("spec: netns missing", |spec| spec.network(Network::Namespace(missing.clone())));
    book.launch("spec: netns is a file", |spec| spec.network(Network::Namespace(disk.clone())));
    book.launch("spec: vcpus 0", |spec| spec.boot(boot().vcpus(0)));
    book.launch("spec: guest memory 0", |spec| spec.boot(boot().memory_mib(0)));
    book.launch("spec: tap name too long", |spec| {
        spec.boot(boot().network(NetworkInterface::new("eth0", "a-name-longer-than-15")))
    });
    book.launch("spec: no API and no boot", |_| JailSpec::new("vm", "/bin/true").no_api());
    book.launch("spec: console is stdout", |spec| spec.console(Console::file("/dev/stdout")));
    book.launch("spec: console relative", |spec| spec.console(Console::file("console.log")));
    book.launch("spec: console is a directory", |spec| spec.console(Console::file(&dir)));
    book.launch("spec: console in a missing directory", |spec| {
        spec.console(Console::file(missing.join("log")))
    });
    book.launch("spec: memory limit 0", |spec| {
        spec.limits(Limits::new().memory_max(ByteSize::bytes(0)))
    });
    book.launch("spec: cpu limit not a number", |spec| spec.limits(Limits::new().cpus(f64::NAN)));
    book.launch("spec: cpuset out of range", |spec| {
        spec.limits(Limits::new().cpuset_cpus("0-4000".parse().unwrap()))
    });
    book.launch("spec: hugetlb page size missing", |spec| {
        spec.limits(Limits::new().hugetlb(ByteSize::mib(3), ByteSize::mib(3)))
    });
    // The uid of a persistent drive's owner, and two VMs on one disk.
    let first = book.spec().drive(Drive::persistent("data", &disk));
    let vm = book.host.jailer().launch(&first).unwrap();
    book.launch("spec: persistent drive in use", |spec| {
        spec.drive(Drive::persistent("data", &disk))
    });
    vm.kill().unwrap();
    drop(vm);
    book.close();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refused_machines() {
    let mut book = Book::new("errors-machine");
    let disk = book.host.scratch.file("disk.img", vec![1; 4096]);
    let older = book.host.scratch.file("firecracker", "#!/bin/sh\necho Firecracker v1.3.0\n");
    fs::set_permissions(&older, fs::Permissions::from_mode(0o755)).unwrap();
    let theirs = book.host.scratch.file("firecracker-theirs", "#!/bin/sh\n");
    fs::set_permissions(&theirs, fs::Permissions::from_mode(0o755)).unwrap();
    chown(&theirs, Some(UID), Some(GID)).unwrap();
    let kernel = book.host.image("idle");
    let eth0 = || NetworkInterface::new("eth0", "tap0");
    let asked = |exec: &Path| {
        JailSpec::new("vm", exec).kernel(&kernel).boot(boot().entropy(Entropy::new()))
    };
    let jailer = book.host.jailer();
    book.tell("machine: option of a newer release", jailer.plan(&asked(&older)));
    book.tell("machine: exec file that others can change", jailer.plan(&asked(&theirs)));
    let apart = boot().huge_pages(HugePages::Mib2).balloon(Balloon::new(1));
    book.launch("machine: huge pages of odd memory", |spec| {
        spec.boot(apart.clone().memory_mib(129))
    });
    book.launch("machine: balloon above the memory", |spec| {
        spec.boot(boot().balloon(Balloon::new(100_000)))
    });
    book.launch("machine: two CPU templates", |spec| {
        spec.boot(boot().cpu_template(CpuTemplate::T2).cpu_config(json!({})))
    });
    book.launch("machine: CPU template that is no object", |spec| {
        spec.boot(boot().cpu_config(json!([])))
    });
    book.launch("machine: hotplug of no whole slot", |spec| {
        spec.boot(boot().memory_hotplug(MemoryHotplug::new(129)))
    });
    book.launch("machine: metadata without an interface", |spec| {
        spec.boot(boot().mmds(Mmds::new("eth0")))
    });
    book.launch("machine: metadata that is no object", |spec| {
        spec.boot(boot().network(eth0()).mmds(Mmds::new("eth0").data(json!(1))))
    });
    book.launch("machine: metadata address", |spec| {
        spec.boot(boot().network(eth0()).mmds(Mmds::new("eth0").address([10, 0, 0, 1].into())))
    });
    book.launch("machine: MTU", |spec| spec.boot(boot().network(eth0().mtu(1))));
    book.launch("machine: a key twice", |spec| {
        spec.boot(boot().extra(json!({ "machine-config": { "vcpu_count": 2 } })))
    });
    book.launch("machine: extra that is no object", |spec| spec.boot(boot().extra(json!(1))));
    book.launch("machine: serial port without an API", |spec| {
        spec.boot(boot().serial(Serial::new())).no_api()
    });
    book.launch("machine: rate limiter of a vhost-user drive", |spec| {
        let limiter = RateLimiter::new().ops(TokenBucket::new(1, 1));
        spec.drive(Drive::vhost_user("data", &disk).rate_limiter(limiter))
    });
    book.launch("machine: limit on files below shared memory", |spec| {
        spec.drive(Drive::vhost_user("data", &disk))
            .resource_limit(ResourceLimit::FileSize(1 << 20))
    });
    book.launch("machine: vhost-user drive is a file", |spec| {
        spec.drive(Drive::vhost_user("data", &disk))
    });
    book.launch("machine: two root devices", |spec| {
        spec.drive(Drive::private("a", &disk).root_device())
            .pmem(Pmem::private("b", &disk).root_device())
    });

    // Of a running VM, and of one that has ended.
    let spec = book.spec().drive(Drive::private("data", &disk));
    let vm = book.host.jailer().launch(&spec).unwrap();
    let (options, patience) = (CopyOptions::new(), Duration::from_secs(60));
    let mut replace = |case, drive: &Drive| {
        book.tell(case, vm.replace_drive(drive, &options, patience));
    };
    replace("running: read-only file for a writable drive", &Drive::read_only("data", &disk));
    replace("running: persistent file", &Drive::persistent("data", &disk));
    replace("running: vhost-user file", &Drive::vhost_user("data", &disk));
    replace("running: relative file", &Drive::private("data", "disk.img"));
    book.tell("running: no PCI", vm.unplug(DeviceKind::Drive, "data", patience));
    book.tell("running: metadata", vm.api().unwrap().set_metadata(&json!([])));
    vm.kill().unwrap();
    book.tell("ended: limits", vm.update_limits(&Limits::new().pids_max(9)));
    let drive = Drive::private("data", &disk);
    book.tell("ended: drive", vm.replace_drive(&drive, &options, patience));
    drop(vm);
    book.close();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn full_or_unfit_filesystems() {
    let mut book = Book::new("errors-fs");
    let big = book.host.scratch.file("big.img", vec![7; 4 << 20]);
    let on = |book: &Book, options: &str, flags| {
        Tmpfs::mount_with(&book.host.scratch.dir("base"), options, flags)
    };
    for (case, options, flags) in [
        ("filesystem: no room for the exec file", "size=64k,mode=0755", MsFlags::empty()),
        ("filesystem: no room for a drive", "size=3m,mode=0755", MsFlags::empty()),
        ("filesystem: no inodes", "nr_inodes=5,mode=0755", MsFlags::empty()),
        ("filesystem: read-only", "mode=0755", MsFlags::MS_RDONLY),
        ("filesystem: noexec", "mode=0755", MsFlags::MS_NOEXEC),
        ("filesystem: nodev", "mode=0755", MsFlags::MS_NODEV),
    ] {
        let tmpfs = on(&book, options, flags);
        book.launch(case, |spec| spec.drive(Drive::private("data", &big)));
        drop(tmpfs);
    }
    // A node is an inode too.
    for inodes in 1..32 {
        let tmpfs = on(&book, &format!("nr_inodes={inodes},mode=0755"), MsFlags::empty());
        let jailer = book.host.jailer().device_nodes(DeviceNodes::Precreate);
        let prepared = jailer.prepare("nodes", &book.host.image("idle"), &big, &[]);
        let _ = jailer.teardown("nodes");
        drop(tmpfs);
        if let Err(error) = prepared
            && error.path().is_some_and(|path| path.ends_with("kvm"))
        {
            book.tell::<()>("filesystem: no inode for a device node", Err(error));
            break;
        }
    }
    book.close();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn failed_launches() {
    let mut book = Book::new("errors-launch");
    let official = book.host.binaries.are_official();
    // How far it comes is a matter of luck, and so is the text.
    let spec = book.spec().ready_within(Duration::ZERO);
    let launched = book.host.jailer().launch(&spec);
    let late = book.check("launch: no time", launched).unwrap();
    assert_eq!(late.kind(), ErrorKind::Timeout, "{late}");
    book.launch("launch: netns of another kind", |spec| {
        spec.network(Network::Namespace("/proc/self/ns/pid".into()))
    });
    let script = book.host.scratch.file("firecracker-script", "#!/no/such/interpreter\n");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).unwrap();
    let spec = JailSpec::new("script", &script)
        .kernel(book.host.image("idle"))
        .boot(boot())
        .ready_within(Duration::from_secs(60));
    book.tell("launch: exec file cannot be executed", book.host.jailer().launch(&spec));
    let _ = book.host.jailer().teardown("script");
    if official && kvm_works().is_ok() {
        let broken = book.host.scratch.file("broken", vec![0; 4096]);
        book.launch("launch: kernel is no kernel", |spec| spec.kernel(&broken));
        book.launch("launch: guest of 1 MiB", |spec| spec.boot(boot().memory_mib(1)));
        book.launch("launch: tap missing", |spec| {
            spec.boot(boot().network(NetworkInterface::new("eth0", "no-such-tap")))
        });
    }
    if official {
        book.launch("launch: pids limit of 1", |spec| spec.limits(Limits::new().pids_max(1)));
    }
    // The control group's counters know better than the status.
    for kib in [4, 64, 256, 1024, 4096] {
        let limits = Limits::new().memory_max(ByteSize::kib(kib));
        let spec = book.spec().limits(limits).ready_within(Duration::from_secs(5));
        let launched = book.host.jailer().launch(&spec);
        if let Some(error) = book.check("launch: small memory limit", launched) {
            assert!(error.hint().is_some_and(|hint| hint.contains("memory_max")), "{kib}: {error}");
        }
    }
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        let limits = Limits::new().memory_max(ByteSize::mib(256));
        let spec = book.spec().cgroup_version(version).limits(limits);
        let launched = book.host.jailer().launch(&spec);
        if let Some(error) = book.check("launch: version without the controller", launched) {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        }
    }
    book.close();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn running_and_stopped_vms() {
    let mut book = Book::new("errors-verbs");
    let jailer = book.host.jailer();
    book.tell("adopt: no such VM", jailer.adopt("nobody"));
    let spec = book.host.idle("vm");
    let vm = jailer.launch(&spec).unwrap();
    book.tell("launch: VM runs in this launcher", jailer.launch(&spec));
    book.tell("adopt: VM of this launcher", jailer.adopt("vm"));
    book.tell("teardown: VM of this launcher", jailer.teardown("vm"));
    let api = vm.api().unwrap();
    book.tell("api: refused", api.action(Action::InstanceStart));
    book.tell("api: path with a blank", api.request("GET", "/a b", None));
    book.tell("api: no time", api.timeout(Duration::ZERO).instance_info());
    let root = jailer.plan(&spec).unwrap().layout().root();
    drop(vm);
    book.tell("prepare: VM runs", jailer.plan(&spec).unwrap().prepare(&CopyOptions::default()));
    let vm = jailer.adopt("vm").unwrap();
    fs::rename(root.join("api.sock"), root.join("moved")).unwrap();
    book.tell("api: socket gone", vm.api());
    fs::write(root.join("api.sock"), "").unwrap();
    book.tell("api: socket replaced", vm.api());
    vm.kill().unwrap();
    book.tell("inspect: VM has ended", vm.inspect());
    drop(vm);
    book.tell("adopt: VM has ended", jailer.adopt("vm"));
    let mount = root.join("mnt");
    fs::create_dir(&mount).unwrap();
    let tmpfs = Tmpfs::mount(&mount, "size=64k");
    book.tell("teardown: mount in the jail", jailer.teardown("vm"));
    drop(tmpfs);
    let mute = book.host.hello("mute").no_api();
    let vm = jailer.launch(&mute).unwrap();
    book.tell("api: VM without an API", vm.api());
    vm.kill().unwrap();
    drop(vm);
    book.close();
}

/// Runs in a new process, because the limit of descriptors holds for the whole process.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn no_descriptors_left() {
    const NAME: &str = "errors::no_descriptors_left";
    if testkit::role().as_deref() != Some("poor") {
        let status = testkit::reenter(NAME, "poor").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    let mut book = Book::new("errors-emfile");
    let spec = book.spec();
    let jailer = book.host.jailer();
    let mut held = Vec::new();
    let (_, hard) =
        nix::sys::resource::getrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE).unwrap();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, 128, hard).unwrap();
    while let Ok(file) = fs::File::open("/dev/null") {
        held.push(file);
    }
    let none = jailer.launch(&spec);
    held.truncate(held.len() - 6);
    let few = jailer.launch(&spec);
    drop(held);
    book.tell("descriptors: none left", none);
    assert!(book.check("descriptors: six left", few).is_some());
    book.close();
}

//! Every option of a machine, read back from Firecracker.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};

use microvm_runtime::{
    Action, Balloon, Boot, CpuTemplate, Drive, Entropy, ErrorKind, FirecrackerOptions, HugePages,
    IoEngine, JailSpec, LogLevel, MemoryHotplug, Mmds, MmdsVersion, Network, NetworkInterface,
    PidNamespace, Pmem, RateLimiter, Serial, TokenBucket, Vm,
};
use serde_json::{Value, json};
use testkit::GUEST_LINE;

use crate::host::{Host, UID, assert_says_hello};

fn get(vm: &Vm, path: &str) -> Value {
    vm.api().unwrap().request("GET", path, None).unwrap().json().unwrap()
}

/// Returns true if `found` contains all of `wanted`: in objects of objects, and in lists in any order.
fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => wanted
            .iter()
            .all(|(name, wanted)| found.get(name).is_some_and(|found| contains(found, wanted))),
        (Value::Array(found), Value::Array(wanted)) => {
            wanted.iter().all(|wanted| found.iter().any(|found| contains(found, wanted)))
        }
        _ => found == wanted,
    }
}

fn assert_contains(found: &Value, wanted: &Value) {
    let missing = wanted
        .as_object()
        .into_iter()
        .flatten()
        .find(|(name, wanted)| !found.get(*name).is_some_and(|found| contains(found, wanted)));
    assert_eq!(missing, None, "{found:#}");
}

fn limiter() -> RateLimiter {
    RateLimiter::new().bandwidth(TokenBucket::new(1 << 20, 100)).ops(TokenBucket::new(1000, 100))
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn every_option_is_reported() {
    let mut host = Host::new("options");
    let netns = testkit::Netns::new(&host.scratch);
    if !netns.add_tap("tap0", UID) {
        return testkit::skip("every_option_is_reported", "no tun driver here");
    }
    let fast = host.scratch.file("fast.img", vec![0; 2 << 20]);
    let spec = host
        .idle("options")
        .network(Network::Namespace(netns.path().into()))
        .pmem(Pmem::private("fast", &fast).rate_limiter(limiter()))
        .pmem(Pmem::read_only("shared", &fast).root_device())
        .drive(Drive::private("own", &fast))
        .firecracker(
            FirecrackerOptions::new()
                .metrics()
                .boot_timer()
                .show_level()
                .show_log_origin()
                .mmds_size_limit(1 << 16),
        )
        .boot(
            Boot::new()
                .vcpus(2)
                .memory_mib(192)
                .kernel_args("console=ttyS0 reboot=k panic=1")
                .track_dirty_pages(true)
                .network(NetworkInterface::new("eth0", "tap0").mtu(1400))
                .cpu_config(json!({
                    "cpuid_modifiers": [{
                        "leaf": "0x1", "subleaf": "0x0", "flags": 0,
                        "modifiers": [{ "register": "ecx", "bitmap": "0bxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx0" }],
                    }],
                }))
                .balloon(
                    Balloon::new(16)
                        .deflate_on_oom(true)
                        .statistics(1)
                        .free_page_hinting(true)
                        .free_page_reporting(true),
                )
                .entropy(Entropy::new().rate_limiter(limiter()))
                .memory_hotplug(MemoryHotplug::new(256).block_mib(4).slot_mib(128))
                .mmds(
                    Mmds::new("eth0")
                        .version(MmdsVersion::V2)
                        .address([169, 254, 1, 7].into())
                        .imds_compat(true)
                        .data(json!({ "latest": { "meta-data": { "id": "i-1" } } })),
                )
                .extra(json!({ "section-of-another-release": { "a": 1 } })),
        );
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let limits = json!({
        "bandwidth": { "size": 1 << 20, "refill_time": 100 },
        "ops": { "size": 1000, "refill_time": 100 },
    });
    let config = get(&vm, "/vm/config");
    assert_contains(
        &config,
        &json!({
            "machine-config": { "vcpu_count": 2, "mem_size_mib": 192, "track_dirty_pages": true },
            "balloon": {
                "amount_mib": 16, "deflate_on_oom": true, "stats_polling_interval_s": 1,
                "free_page_hinting": true, "free_page_reporting": true,
            },
            "entropy": { "rate_limiter": limits },
            "memory-hotplug": { "total_size_mib": 256, "block_size_mib": 4, "slot_size_mib": 128 },
            "mmds-config": {
                "version": "V2", "ipv4_address": "169.254.1.7", "network_interfaces": ["eth0"],
                "imds_compat": true,
            },
            "network-interfaces": [{ "iface_id": "eth0", "host_dev_name": "tap0", "mtu": 1400 }],
            "pmem": [
                { "id": "fast", "path_on_host": "/fast", "root_device": false, "read_only": false, "rate_limiter": limits },
                { "id": "shared", "path_on_host": "/shared", "root_device": true, "read_only": true },
            ],
            "drives": [{ "drive_id": "own", "is_root_device": false }],
        }),
    );
    let metadata = get(&vm, "/mmds");
    assert_eq!(metadata, json!({ "latest": { "meta-data": { "id": "i-1" } } }));
    vm.kill().unwrap();
    drop((vm, netns));
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn serial_ports_are_configured_by_requests() {
    let mut host = Host::new("serial");
    let machine = |serial| Boot::new().kernel_args("console=ttyS0").serial(serial);
    let limited = Serial::new().rate_limiter(TokenBucket::new(1 << 20, 100));
    let spec = host.idle("limited").boot(machine(limited).vcpus(2).memory_mib(192));
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let vm = host.jailer().launch(&spec.clone().pid_namespace(mode)).unwrap();
        assert_says_hello(&vm);
        assert_contains(
            &get(&vm, "/vm/config"),
            &json!({
                "machine-config": { "vcpu_count": 2, "mem_size_mib": 192 },
                "boot-source": { "kernel_image_path": "/vmlinux", "boot_args": "console=ttyS0" },
            }),
        );
        drop(vm);
        host.jailer().adopt("limited").unwrap().kill().unwrap();
    }

    let spec = host.idle("file").boot(machine(Serial::new().file_in_jail()));
    let plan = host.jailer().plan(&spec).unwrap();
    let output = plan.layout().root().join("serial.out");
    assert!(plan.to_string().contains("PUT /serial"), "{plan}");
    let vm = host.jailer().launch(&spec).unwrap();
    let begun = std::time::Instant::now();
    while !fs::read_to_string(&output).unwrap().contains(GUEST_LINE) {
        assert!(begun.elapsed().as_secs() < 60, "{}", fs::read_to_string(&output).unwrap());
        std::thread::yield_now();
    }
    assert_eq!(vm.console().unwrap().text(), "");
    vm.kill().unwrap();
    drop(vm);

    let error = host.jailer().plan(&spec.no_api()).unwrap_err();
    assert!(error.to_string().contains("over the API"), "{error}");
    host.assert_clean();
}

/// Firecracker refuses the second request, before the start.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_refused_request_leaves_nothing() {
    let mut host = Host::new("refused");
    let spec = host.idle("refused").boot(
        Boot::new()
            .serial(Serial::new())
            .extra(json!({ "drives": [{ "drive_id": "none", "path_on_host": "/none", "is_root_device": false }] })),
    );
    let error = host.jailer().launch(&spec).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Api, "{error}");
    assert!(error.to_string().contains("PUT /drives/none"), "{error}");
    assert!(error.cleanup_failures().is_empty(), "{error}");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn older_firecrackers_are_asked() {
    let host = Host::new("asked");
    let asked = host.scratch.join("asked");
    let program = |name: &str, printed: &str| {
        let script = format!("#!/bin/sh\necho >> {}\necho '{printed}'\n", asked.display());
        let path = host.scratch.file(name, script);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    };
    let older = program("firecracker-1.3", "Firecracker v1.3.0");
    let newer = program("firecracker-2", "Firecracker v2.0.0");
    let other = program("firecracker-x", "hello");
    let times = || fs::read_to_string(&asked).unwrap_or_default().len();
    let spec = |exec: &std::path::Path, boot| {
        JailSpec::new("vm", exec).kernel(host.image("idle")).boot(boot)
    };
    let jailer = host.jailer();
    let entropy = || Boot::new().entropy(Entropy::new());
    // Known to every release: nobody is asked.
    jailer.plan(&spec(&older, Boot::new().balloon(Balloon::new(1)))).unwrap();
    assert_eq!(times(), 0);
    for _ in 0..3 {
        let error = jailer.plan(&spec(&older, entropy())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for word in ["configure entropy", "Firecracker 1.3.0", "1.4.0 is the first"] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }
    assert_eq!(times(), 1, "asked once");
    // An argument of Firecracker's, by Firecracker's own release and not by the jailer's.
    let options = FirecrackerOptions::new().enable_pci();
    let error = jailer.plan(&spec(&older, Boot::new()).firecracker(options)).unwrap_err();
    assert!(error.to_string().contains("--enable-pci"), "{error}");
    let plan = jailer.plan(&spec(&newer, entropy())).unwrap();
    assert!(plan.to_string().contains("Firecracker 2.0.0 is newer than"), "{plan}");
    let error = jailer.plan(&spec(&other, entropy())).unwrap_err();
    assert!(error.to_string().contains("printed \"hello\""), "{error}");
    // The same file with another content, as after an upgrade in place.
    fs::write(&older, fs::read_to_string(&newer).unwrap()).unwrap();
    jailer.plan(&spec(&older, entropy())).unwrap();
    // A program of another user is not run as root.
    let before = times();
    let theirs = program("firecracker-theirs", "Firecracker v1.16.1");
    std::os::unix::fs::chown(&theirs, Some(UID), None).unwrap();
    let open = program("firecracker-open", "Firecracker v1.16.1");
    fs::set_permissions(&open, fs::Permissions::from_mode(0o775)).unwrap();
    for exec in [&theirs, &open] {
        let error = jailer.plan(&spec(exec, entropy())).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error}");
        assert!(error.to_string().contains("others can change"), "{error}");
        jailer.plan(&spec(exec, Boot::new())).unwrap();
    }
    assert_eq!(times(), before);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn cpu_templates_are_reported() {
    let mut host = Host::new("template");
    let spec = host.idle("vm").boot(Boot::new().cpu_template(CpuTemplate::T2A));
    match host.jailer().launch(&spec) {
        Ok(vm) => {
            let config = get(&vm, "/vm/config");
            assert_contains(&config, &json!({ "machine-config": { "cpu_template": "T2A" } }));
            vm.kill().unwrap();
        }
        Err(error) if error.to_string().contains("CPU template") => {
            testkit::skip(
                "cpu_templates_are_reported",
                "Firecracker permits T2A on some processors only",
            );
        }
        Err(error) => panic!("{error}"),
    }
    host.assert_clean();
}

/// The host's pool of huge pages, with some pages more until the drop.
struct Pool {
    before: u64,
}

impl Pool {
    const FILE: &str = "/proc/sys/vm/nr_hugepages";

    /// Returns `None` if the host has no such pool, or not enough memory.
    fn with(more: u64) -> Option<Self> {
        let pages = || fs::read_to_string(Self::FILE).ok()?.trim().parse::<u64>().ok();
        let pool = Self { before: pages()? };
        fs::write(Self::FILE, (pool.before + more).to_string()).ok()?;
        (pages()? >= pool.before + more).then_some(pool)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Err(error) = fs::write(Self::FILE, self.before.to_string()) {
            eprintln!("left behind: huge pages: {error}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn huge_pages_back_the_guest() {
    let mut host = Host::new("huge");
    let Some(pool) = Pool::with(32) else {
        return testkit::skip("huge_pages_back_the_guest", "this host makes no pool of huge pages");
    };
    let boot = Boot::new().memory_mib(64).kernel_args("console=ttyS0").huge_pages(HugePages::Mib2);
    let spec = host.idle("vm").boot(boot);
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let config = get(&vm, "/vm/config");
    assert_contains(&config, &json!({ "machine-config": { "huge_pages": "2M" } }));
    if host.binaries.are_official() {
        let maps = fs::read_to_string(format!("/proc/{}/smaps", vm.pid())).unwrap();
        assert!(maps.contains("KernelPageSize:     2048 kB"), "{maps}");
    }
    vm.kill().unwrap();
    drop((vm, pool));
    host.assert_clean();
}

/// Answers the requests of a vhost-user frontend that has no guest with a driver, and returns their numbers.
fn serve_vhost_user(listener: &UnixListener) -> Vec<u32> {
    const GET_FEATURES: u32 = 1;
    let (mut stream, _) = listener.accept().unwrap();
    let mut requests = Vec::new();
    loop {
        let word = |stream: &mut UnixStream| {
            let mut bytes = [0; 4];
            stream.read_exact(&mut bytes).ok().map(|()| u32::from_ne_bytes(bytes))
        };
        let (Some(request), Some(_), Some(size)) =
            (word(&mut stream), word(&mut stream), word(&mut stream))
        else {
            return requests;
        };
        let mut body = vec![0; size as usize];
        stream.read_exact(&mut body).unwrap();
        requests.push(request);
        if request == GET_FEATURES {
            let reply = [GET_FEATURES, 0b101, 8].map(u32::to_ne_bytes).concat();
            let virtio_1 = (1_u64 << 32).to_ne_bytes();
            stream.write_all(&[reply, virtio_1.to_vec()].concat()).unwrap();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn vhost_user_drives_reach_their_backend() {
    let mut host = Host::new("vhost");
    let path = host.scratch.join("backend.sock");
    let listener = UnixListener::bind(&path).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    let spec = host.idle("vm").drive(Drive::vhost_user("disk", &path));
    let error = host.jailer().launch(&spec).unwrap_err();
    assert!(error.to_string().contains(&format!("uid {UID}")), "{error}");
    std::os::unix::fs::chown(&path, Some(UID), None).unwrap();
    let backend = std::thread::spawn(move || serve_vhost_user(&listener));
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    let config = get(&vm, "/vm/config");
    assert_contains(&config, &json!({ "drives": [{ "drive_id": "disk", "socket": "/disk" }] }));
    vm.kill().unwrap();
    let requests = backend.join().unwrap();
    assert!(!host.binaries.are_official() || requests.starts_with(&[3, 1]), "{requests:?}");
    drop(vm);
    host.jailer().teardown("vm").unwrap();
    assert!(path.exists(), "the backend's own name stays");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn drive_and_log_options_are_reported() {
    let mut host = Host::new("rest");
    let image = host.scratch.file("image", vec![0; 1 << 20]);
    let spec = host
        .idle("vm")
        .drive(
            Drive::private("root", &image)
                .root_device()
                .partuuid("0eaa91a0-01")
                .io_engine(IoEngine::Async),
        )
        .boot(Boot::new().vcpus(2).smt(true).kernel_args("console=ttyS0"))
        .firecracker(
            FirecrackerOptions::new()
                .metrics()
                .log_level(LogLevel::Info)
                .show_level()
                .show_log_origin()
                .log_module("firecracker::api_server"),
        );
    let vm = host.jailer().launch(&spec).unwrap();
    assert_says_hello(&vm);
    assert_contains(
        &get(&vm, "/vm/config"),
        &json!({
            "machine-config": { "vcpu_count": 2, "smt": true },
            "drives": [{
                "drive_id": "root", "is_root_device": true, "partuuid": "0eaa91a0-01", "io_engine": "Async",
            }],
        }),
    );
    // Level and origin stand between the brackets; other modules are silent.
    let received = |line: &str| line.contains("The API server received");
    let line = vm.log().wait_for_line(received, std::time::Duration::from_secs(60)).unwrap();
    let head = line.split(']').next().unwrap_or_default();
    assert!(head.contains(":INFO:") && head.contains(".rs:"), "{line}");
    assert!(!vm.log().text().contains("Running Firecracker"), "{}", vm.log().text());
    vm.api().unwrap().action(Action::FlushMetrics).unwrap();
    if host.binaries.are_official() {
        let metrics = vm.metrics_tail(1 << 20).unwrap();
        assert!(metrics.contains("\"vmm\""), "{metrics}");
    }
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

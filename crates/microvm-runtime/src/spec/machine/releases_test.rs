//! For each field of the configuration: the JSON, the first release that accepts it, and the refusal before that.

use jail_cmd::JailerVersion;
use serde_json::{Value, json};

use super::*;
use crate::error::ErrorKind;
use crate::spec::drive::Drive;
use crate::spec::pmem::Pmem;

/// Every release from 1.0.0 to 1.16.1.
const RELEASES: [(u16, u16, u16); 40] = [
    (1, 0, 0),
    (1, 0, 1),
    (1, 0, 2),
    (1, 1, 0),
    (1, 1, 1),
    (1, 1, 2),
    (1, 1, 3),
    (1, 1, 4),
    (1, 2, 0),
    (1, 2, 1),
    (1, 3, 0),
    (1, 3, 1),
    (1, 3, 2),
    (1, 3, 3),
    (1, 4, 0),
    (1, 4, 1),
    (1, 5, 0),
    (1, 5, 1),
    (1, 6, 0),
    (1, 7, 0),
    (1, 8, 0),
    (1, 9, 0),
    (1, 9, 1),
    (1, 10, 0),
    (1, 10, 1),
    (1, 11, 0),
    (1, 12, 0),
    (1, 12, 1),
    (1, 13, 0),
    (1, 13, 1),
    (1, 13, 2),
    (1, 14, 0),
    (1, 14, 1),
    (1, 14, 2),
    (1, 14, 3),
    (1, 14, 4),
    (1, 15, 0),
    (1, 15, 1),
    (1, 16, 0),
    (1, 16, 1),
];

const ALWAYS: (u16, u16, u16) = (1, 0, 0);

fn release((major, minor, patch): (u16, u16, u16)) -> JailerVersion {
    JailerVersion::new(major, minor, patch)
}

fn files() -> MachineFiles {
    MachineFiles { kernel: "/vmlinux".to_owned(), mmds_limit: 51_200, ..MachineFiles::default() }
}

fn limiter() -> RateLimiter {
    RateLimiter::new().ops(TokenBucket::new(1, 2))
}

/// Checks one field: its place in the document, its JSON there, and its releases.
fn assert_first(document: &Document, field: &str, value: &Value, first: (u16, u16, u16)) {
    let config: Value = serde_json::from_str(&document.file()).unwrap();
    let pointer = format!("/{}", field.split('=').next().unwrap_or_default().replace('.', "/"));
    let found = config.pointer(&pointer.replace("drives/", "drives/0/"));
    let found = found.or_else(|| config.pointer(&pointer.replace("pmem/", "pmem/0/")));
    let found = found.or_else(|| {
        config.pointer(&pointer.replace("network-interfaces/", "network-interfaces/0/"))
    });
    // The template stands in a file of its own.
    let found = found.cloned().unwrap_or_else(|| {
        let template: Value = serde_json::from_str(&document.cpu_config().unwrap()).unwrap();
        template[field.rsplit('.').next().unwrap_or_default()].clone()
    });
    assert_eq!(&found, value, "{field} of {config:#}");
    assert_eq!(document.first_release(), release(first), "{field}");
    for older in RELEASES.into_iter().filter(|release| *release < first) {
        let older = release(older);
        let error = document.check_release(older).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        for word in [field, &older.to_string(), &release(first).to_string()] {
            assert!(error.to_string().contains(word), "{word}: {error}");
        }
    }
    for newer in RELEASES.into_iter().filter(|release| *release >= first) {
        document.check_release(release(newer)).unwrap();
    }
    // Taken for the newest.
    document.check_release(JailerVersion::new(1, 99, 0)).unwrap();
}

#[test]
fn every_field_has_its_release() {
    let eth0 = || NetworkInterface::new("eth0", "tap0");
    let net = |interface| Boot::new().network(interface);
    let mmds = |mmds| Boot::new().network(eth0()).mmds(mmds);
    let template = |template| Boot::new().cpu_template(template);
    let rows = [
        (Boot::new().vcpus(3), "machine-config.vcpu_count", json!(3), ALWAYS),
        (Boot::new().memory_mib(3), "machine-config.mem_size_mib", json!(3), ALWAYS),
        (Boot::new().smt(true), "machine-config.smt", json!(true), ALWAYS),
        (
            Boot::new().track_dirty_pages(true),
            "machine-config.track_dirty_pages",
            json!(true),
            ALWAYS,
        ),
        (Boot::new().kernel_args("quiet"), "boot-source.boot_args", json!("quiet"), ALWAYS),
        (Boot::new().vsock(3), "vsock.guest_cid", json!(3), ALWAYS),
        (
            Boot::new().huge_pages(HugePages::Mib2),
            "machine-config.huge_pages",
            json!("2M"),
            (1, 7, 0),
        ),
        (Boot::new().balloon(Balloon::new(7)), "balloon.amount_mib", json!(7), ALWAYS),
        (
            Boot::new().balloon(Balloon::new(7).deflate_on_oom(true)),
            "balloon.deflate_on_oom",
            json!(true),
            ALWAYS,
        ),
        (
            Boot::new().balloon(Balloon::new(7).statistics(5)),
            "balloon.stats_polling_interval_s",
            json!(5),
            ALWAYS,
        ),
        (
            Boot::new().balloon(Balloon::new(7).free_page_hinting(true)),
            "balloon.free_page_hinting",
            json!(true),
            (1, 14, 0),
        ),
        (
            Boot::new().balloon(Balloon::new(7).free_page_reporting(true)),
            "balloon.free_page_reporting",
            json!(true),
            (1, 14, 0),
        ),
        (Boot::new().entropy(Entropy::new()), "entropy", json!({}), (1, 4, 0)),
        (
            Boot::new().memory_hotplug(MemoryHotplug::new(256).block_mib(4).slot_mib(128)),
            "memory-hotplug",
            json!({ "total_size_mib": 256, "block_size_mib": 4, "slot_size_mib": 128 }),
            (1, 14, 0),
        ),
        (
            mmds(Mmds::new("eth0").version(MmdsVersion::V2).address([169, 254, 1, 1].into())),
            "mmds-config",
            json!({
                "version": "V2", "network_interfaces": ["eth0"], "ipv4_address": "169.254.1.1",
            }),
            ALWAYS,
        ),
        (
            mmds(Mmds::new("eth0").imds_compat(true)),
            "mmds-config.imds_compat",
            json!(true),
            (1, 13, 0),
        ),
        (
            net(eth0().mac("06:00:00:00:00:01")),
            "network-interfaces.guest_mac",
            json!("06:00:00:00:00:01"),
            ALWAYS,
        ),
        (net(eth0().mtu(1400)), "network-interfaces.mtu", json!(1400), (1, 16, 0)),
        (Boot::new().serial(Serial::new()), "serial", json!({}), (1, 14, 0)),
        (
            Boot::new().serial(Serial::new().rate_limiter(TokenBucket::new(1, 2))),
            "serial.rate_limiter",
            json!({ "size": 1, "refill_time": 2 }),
            (1, 16, 0),
        ),
        (
            Boot::new().cpu_config(json!({ "kvm_capabilities": ["!56"] })),
            "cpu-config.kvm_capabilities",
            json!(["!56"]),
            (1, 5, 0),
        ),
        (
            Boot::new().cpu_config(json!({ "vcpu_features": [] })),
            "cpu-config.vcpu_features",
            json!([]),
            (1, 5, 0),
        ),
        (Boot::new().cpu_config(json!({})), "cpu-config", json!("/cpu-config.json"), (1, 4, 0)),
        (Boot::new().extra(json!({ "new": 1 })), "new", json!(1), ALWAYS),
        (Boot::new().extra(json!({ "entropy": {} })), "entropy", json!({}), (1, 4, 0)),
    ];
    for (boot, field, value, first) in rows {
        assert_first(&Document::new(&boot, files()).unwrap(), field, &value, first);
    }
    #[cfg(target_arch = "x86_64")]
    for (name, first) in [
        (CpuTemplate::C3, ALWAYS),
        (CpuTemplate::T2, ALWAYS),
        (CpuTemplate::T2S, (1, 1, 1)),
        (CpuTemplate::T2CL, (1, 3, 0)),
        (CpuTemplate::T2A, (1, 3, 0)),
    ] {
        let document = Document::new(&template(name), files()).unwrap();
        let field = format!("machine-config.cpu_template={name:?}");
        assert_first(&document, &field, &json!(format!("{name:?}")), first);
    }
    #[cfg(target_arch = "aarch64")]
    assert_first(
        &Document::new(&template(CpuTemplate::V1N1), files()).unwrap(),
        "machine-config.cpu_template=V1N1",
        &json!("V1N1"),
        (1, 4, 0),
    );
}

#[test]
fn every_field_of_a_file_has_its_release() {
    let drive = |drive: Drive| drive.config(true).unwrap();
    let own = || Drive::private("own", "/own");
    let pmem = || Pmem::read_only("fast", "/fast");
    let with = |drives, pmem| {
        Document::new(&Boot::new(), MachineFiles { drives, pmem, ..files() }).unwrap()
    };
    for (drive, field, value, first) in [
        (drive(own()), "drives.path_on_host", json!("/own"), ALWAYS),
        (drive(own().partuuid("0a-01")), "drives.partuuid", json!("0a-01"), ALWAYS),
        (
            drive(own().cache_type(CacheType::Writeback)),
            "drives.cache_type",
            json!("Writeback"),
            ALWAYS,
        ),
        (drive(own().io_engine(IoEngine::Async)), "drives.io_engine", json!("Async"), ALWAYS),
        (
            drive(own().rate_limiter(limiter())),
            "drives.rate_limiter",
            json!({ "ops": { "size": 1, "refill_time": 2 } }),
            ALWAYS,
        ),
        (drive(Drive::vhost_user("v", "/s")), "drives.socket", json!("/v"), (1, 6, 0)),
    ] {
        assert_first(&with(vec![drive], Vec::new()), field, &value, first);
    }
    for (device, field, value, first) in [
        (
            pmem().root_device(),
            "pmem",
            json!([{ "id": "fast", "path_on_host": "/fast", "root_device": true, "read_only": true }]),
            (1, 14, 0),
        ),
        (
            pmem().rate_limiter(limiter()),
            "pmem.rate_limiter",
            json!({ "ops": { "size": 1, "refill_time": 2 } }),
            (1, 16, 0),
        ),
    ] {
        assert_first(&with(Vec::new(), vec![device.config()]), field, &value, first);
    }
}

#[test]
fn some_options_were_apart() {
    let boot = Boot::new().huge_pages(HugePages::Mib2).balloon(Balloon::new(1));
    let document = Document::new(&boot, files()).unwrap();
    assert_eq!(document.first_release(), JailerVersion::new(1, 14, 0));
    let error = document.check_release(JailerVersion::new(1, 13, 0)).unwrap_err();
    assert!(
        error.to_string().contains("machine-config.huge_pages together with balloon"),
        "{error}"
    );
    let initrd = MachineFiles { initrd: Some("/initrd".to_owned()), ..files() };
    let document = Document::new(&Boot::new().huge_pages(HugePages::Mib2), initrd).unwrap();
    assert!(document.check_release(JailerVersion::new(1, 10, 1)).is_err());
    document.check_release(JailerVersion::new(1, 11, 0)).unwrap();
}

#[test]
fn requests_say_what_the_file_says() {
    let boot = Boot::new()
        .network(NetworkInterface::new("eth0", "tap0"))
        .mmds(Mmds::new("eth0"))
        .cpu_config(json!({ "kvm_capabilities": [] }))
        .memory_hotplug(MemoryHotplug::new(128))
        .serial(Serial::new())
        .extra(json!({ "new": {} }));
    let drives = vec![Drive::private("own", "/own").config(true).unwrap()];
    let pmem = vec![Pmem::private("fast", "/fast").config()];
    let document = Document::new(&boot, MachineFiles { drives, pmem, ..files() }).unwrap();
    let requests = document.requests();
    let paths: Vec<_> = requests.iter().map(|request| request.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/machine-config",
            "/cpu-config",
            "/boot-source",
            "/hotplug/memory",
            "/serial",
            "/drives/own",
            "/network-interfaces/eth0",
            "/pmem/fast",
            "/mmds/config",
            "/new",
        ]
    );
    assert_eq!(requests[1].body, json!({ "kvm_capabilities": [] }));
    assert_eq!(requests[5].body["path_on_host"], "/own");
}

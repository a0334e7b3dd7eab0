//! The sections of Firecracker's configuration, checked.

use jail_cmd::in_jail;
use serde::Serialize;
use serde_json::Value;

use super::machine_config::MachineConfig;
use super::mmds::MmdsConfig;
use super::pmem::PmemConfig;
use super::{Balloon, Boot, DriveConfig, Entropy, MemoryHotplug, NetworkInterface, Serial};
use crate::error::{Error, Result};

/// Longest kernel command line, in bytes, without the part that Firecracker appends.
const MAX_KERNEL_ARGS: usize = 1536;

/// Smallest context id of a guest: 0 to 2 are the hypervisor, the loopback and the host.
const MIN_CID: u32 = 3;

/// The whole configuration, checked, in Firecracker's own words. Fields that a spec leaves out are not written, so that
/// a configuration needs no newer release than its options.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct VmConfig {
    boot_source: BootSource,
    drives: Vec<DriveConfig>,
    machine_config: MachineConfig,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network_interfaces: Vec<NetworkInterface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<Vsock>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_config: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    balloon: Option<Balloon>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mmds_config: Option<MmdsConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entropy: Option<Entropy>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pmem: Vec<PmemConfig>,
    #[serde(skip_serializing_if = "Option::is_none")]
    memory_hotplug: Option<MemoryHotplug>,
    #[serde(skip_serializing_if = "Option::is_none")]
    serial: Option<Serial>,
}

/// The files and sizes that a machine's configuration depends on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct MachineFiles {
    /// The kernel's path in the jail.
    pub(crate) kernel: String,
    /// The initial ramdisk's path in the jail.
    pub(crate) initrd: Option<String>,
    pub(crate) drives: Vec<DriveConfig>,
    pub(crate) pmem: Vec<PmemConfig>,
    /// The size of the metadata store, in bytes.
    pub(crate) mmds_limit: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct BootSource {
    kernel_image_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    initrd_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    boot_args: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Vsock {
    guest_cid: u32,
    uds_path: String,
}

impl VmConfig {
    /// The configuration of a machine with these files.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) with the field's name and value if no Firecracker accepts it.
    pub(crate) fn new(boot: &Boot, files: MachineFiles) -> Result<Self> {
        let MachineFiles { kernel, initrd, drives, pmem, mmds_limit } = files;
        let machine_config = MachineConfig::new(boot)?;
        check_kernel_args(boot.kernel_args.as_deref())?;
        for drive in &drives {
            drive.check()?;
        }
        pmem.iter().try_for_each(PmemConfig::check)?;
        for interface in &boot.networks {
            interface.check()?;
        }
        boot.balloon.iter().try_for_each(|balloon| balloon.check(boot.memory_mib))?;
        boot.entropy.iter().try_for_each(Entropy::check)?;
        boot.memory_hotplug.iter().try_for_each(MemoryHotplug::check)?;
        boot.serial.iter().try_for_each(Serial::check)?;
        boot.mmds.iter().try_for_each(|mmds| mmds.check(&boot.networks, mmds_limit))?;
        unique("drives", "id", drives.iter().map(DriveConfig::id))?;
        unique("pmem devices", "id", pmem.iter().map(PmemConfig::id))?;
        unique("network interfaces", "id", boot.networks.iter().map(NetworkInterface::id))?;
        unique(
            "network interfaces",
            "tap device",
            boot.networks.iter().map(NetworkInterface::tap),
        )?;
        unique(
            "network interfaces",
            "MAC address",
            boot.networks.iter().filter_map(NetworkInterface::guest_mac),
        )?;
        let roots = drives.iter().filter(|drive| drive.is_root_device()).count()
            + pmem.iter().filter(|device| device.is_root_device()).count();
        if roots > 1 {
            return Err(Error::invalid(
                "plan the drives",
                format!("{roots} of them are the root device"),
            )
            .hinted("Mark one drive or pmem device as the root device."));
        }
        if let Some(cid) = boot.vsock.filter(|cid| !(MIN_CID..u32::MAX).contains(cid)) {
            return Err(Error::invalid(
                "plan the vsock device",
                format!("{cid} is no context id of a guest"),
            )
            .hinted(format!("{MIN_CID} to {}", u32::MAX - 1)));
        }
        Ok(Self {
            boot_source: BootSource {
                kernel_image_path: kernel,
                initrd_path: initrd,
                boot_args: boot.kernel_args.clone(),
            },
            drives,
            machine_config,
            network_interfaces: boot
                .networks
                .iter()
                .map(NetworkInterface::for_firecracker)
                .collect(),
            vsock: boot
                .vsock
                .map(|guest_cid| Vsock { guest_cid, uds_path: format!("/{}", in_jail::VSOCK) }),
            cpu_config: boot.cpu_config.clone(),
            balloon: boot.balloon.clone(),
            mmds_config: boot.mmds.as_ref().map(|mmds| mmds.config.clone()),
            entropy: boot.entropy.clone(),
            pmem,
            memory_hotplug: boot.memory_hotplug.clone(),
            serial: boot.serial.clone(),
        })
    }
}

fn check_kernel_args(args: Option<&str>) -> Result<()> {
    let Some(args) = args else { return Ok(()) };
    let operation = "plan the kernel arguments";
    if let Some(bad) = args.chars().find(|&char| !(' '..='~').contains(&char)) {
        return Err(Error::invalid(operation, format!("{bad:?} is in them"))
            .hinted("Use printable ASCII only."));
    }
    if args.len() > MAX_KERNEL_ARGS {
        return Err(Error::invalid(operation, format!("they have {} bytes", args.len()))
            .hinted(format!("Use at most {MAX_KERNEL_ARGS} bytes.")));
    }
    Ok(())
}

fn unique(things: &str, what: &str, names: impl Iterator<Item = impl Into<String>>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let name = name.into();
        if !seen.insert(name.clone()) {
            return Err(Error::invalid(
                format!("plan the {things}"),
                format!("two have the {what} {name:?}"),
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::{
        CacheType, CpuTemplate, HugePages, IoEngine, Mmds, RateLimiter, TokenBucket,
    };
    use super::*;
    use crate::error::ErrorKind;

    fn files(drives: Vec<DriveConfig>) -> MachineFiles {
        MachineFiles {
            kernel: "/vmlinux".to_owned(),
            drives,
            mmds_limit: 51_200,
            ..MachineFiles::default()
        }
    }

    #[test]
    fn smallest_config_has_required_fields() {
        assert_eq!(
            serde_json::to_value(VmConfig::new(&Boot::new(), files(Vec::new())).unwrap()).unwrap(),
            json!({
                "boot-source": { "kernel_image_path": "/vmlinux" },
                "drives": [],
                "machine-config": { "vcpu_count": 1, "mem_size_mib": 128 },
            })
        );
    }

    #[test]
    fn everything_has_firecrackers_names() {
        let limiter = RateLimiter::new()
            .bandwidth(TokenBucket::new(1_000_000, 1000).one_time_burst(5))
            .ops(TokenBucket::new(100, 10));
        let boot = Boot::new()
            .vcpus(2)
            .memory_mib(512)
            .smt(true)
            .track_dirty_pages(true)
            .kernel_args("console=ttyS0")
            .network(
                NetworkInterface::new("eth0", "tap0")
                    .mac("06:00:AC:10:00:02")
                    .rx_rate_limiter(limiter.clone()),
            )
            .vsock(3);
        let root = DriveConfig::new("rootfs", "/rootfs")
            .unwrap()
            .root_device(true)
            .partuuid("0eaa91a0-01");
        let data = DriveConfig::new("data", "/data")
            .unwrap()
            .read_only(true)
            .cache_type(CacheType::Writeback)
            .io_engine(IoEngine::Async)
            .rate_limiter(limiter);
        let config = VmConfig::new(
            &boot,
            MachineFiles { initrd: Some("/initrd".to_owned()), ..files(vec![root, data]) },
        )
        .unwrap();
        let limits = json!({
            "bandwidth": { "size": 1_000_000, "one_time_burst": 5, "refill_time": 1000 },
            "ops": { "size": 100, "refill_time": 10 },
        });
        assert_eq!(
            serde_json::to_value(&config).unwrap(),
            json!({
                "boot-source": {
                    "kernel_image_path": "/vmlinux", "initrd_path": "/initrd", "boot_args": "console=ttyS0",
                },
                "drives": [
                    {
                        "drive_id": "rootfs", "path_on_host": "/rootfs", "is_root_device": true,
                        "is_read_only": false, "partuuid": "0eaa91a0-01",
                    },
                    {
                        "drive_id": "data", "path_on_host": "/data", "is_root_device": false, "is_read_only": true,
                        "cache_type": "Writeback", "io_engine": "Async", "rate_limiter": limits,
                    },
                ],
                "machine-config": {
                    "vcpu_count": 2, "mem_size_mib": 512, "smt": true, "track_dirty_pages": true,
                },
                "network-interfaces": [{
                    "iface_id": "eth0", "host_dev_name": "tap0", "guest_mac": "06:00:AC:10:00:02",
                    "rx_rate_limiter": limits,
                }],
                "vsock": { "guest_cid": 3, "uds_path": "/v.sock" },
            })
        );
    }

    #[test]
    fn a_boot_survives_serialisation() {
        let boot = Boot::new()
            .network(NetworkInterface::new("eth0", "tap0"))
            .vsock(7)
            .kernel_args("quiet");
        let text = serde_json::to_string(&boot).unwrap();
        assert_eq!(serde_json::from_str::<Boot>(&text).unwrap(), boot);
    }

    #[test]
    fn bad_values_are_named() {
        let net = |id: &str, tap: &str| NetworkInterface::new(id, tap);
        let mac = |mac: &str| Boot::new().network(net("eth0", "tap0").mac(mac));
        let none = RateLimiter::new().ops(TokenBucket::new(0, 10));
        let mmds = |mmds| Boot::new().network(net("eth0", "tap0")).mmds(mmds);
        let hotplug = |memory| Boot::new().memory_hotplug(memory);
        for (boot, tells) in [
            (Boot::new().vcpus(0), "0 vCPUs"),
            (Boot::new().vcpus(33), "33 vCPUs"),
            (Boot::new().vcpus(3).smt(true), "3 vCPUs"),
            (Boot::new().memory_mib(0), "0 MiB"),
            (Boot::new().memory_mib(u64::MAX), "18446744073709551615 MiB"),
            (Boot::new().kernel_args("a\nb"), r"'\n'"),
            (Boot::new().kernel_args("\u{e9}"), "'\u{e9}'"),
            (Boot::new().kernel_args("x".repeat(1537)), "1537 bytes"),
            (Boot::new().huge_pages(HugePages::Mib2).memory_mib(129), "129 MiB"),
            (Boot::new().cpu_template(CpuTemplate::T2).cpu_config(json!({})), "two CPU templates"),
            (Boot::new().cpu_config(json!([])), "no JSON object"),
            #[cfg(target_arch = "x86_64")]
            (Boot::new().cpu_template(CpuTemplate::V1N1), "V1N1 is no template for x86_64"),
            (Boot::new().balloon(Balloon::new(129)), "129 MiB, and the guest has 128"),
            (Boot::new().balloon(Balloon::new(1).statistics(0)), "every 0 s"),
            (Boot::new().entropy(Entropy::new().rate_limiter(none.clone())), "size 0"),
            (Boot::new().serial(Serial::new().rate_limiter(TokenBucket::new(1, 0))), "0 ms"),
            (hotplug(MemoryHotplug::new(256).block_mib(1)), "1 MiB, which is no power of two"),
            (hotplug(MemoryHotplug::new(256).block_mib(6)), "6 MiB, which is no power of two"),
            (hotplug(MemoryHotplug::new(256).slot_mib(64)), "64 MiB, which is no multiple"),
            (hotplug(MemoryHotplug::new(258).slot_mib(129)), "129 MiB, which is no multiple"),
            (hotplug(MemoryHotplug::new(0)), "it has 0 MiB"),
            (hotplug(MemoryHotplug::new(129)), "it has 129 MiB"),
            (hotplug(MemoryHotplug::new(1 << 63)), "it has 9223372036854775808 MiB"),
            (Boot::new().mmds(Mmds::default()), "no network interface"),
            (Boot::new().mmds(Mmds::new("eth0")), "no network interface \"eth0\""),
            (mmds(Mmds::new("eth0").address([10, 0, 0, 1].into())), "10.0.0.1"),
            (mmds(Mmds::new("eth0").address([169, 254, 0, 1].into())), "169.254.0.1"),
            (mmds(Mmds::new("eth0").address([169, 254, 255, 1].into())), "169.254.255.1"),
            (mmds(Mmds::new("eth0").data(json!(7))), "no JSON object"),
            (mmds(Mmds::new("eth0").data(json!({ "a": "x".repeat(51_200) }))), "the store 51200"),
            (Boot::new().network(net("eth0", "tap0").mtu(67)), "its MTU is 67"),
            (Boot::new().vsock(2), "2 is no context id"),
            (Boot::new().vsock(u32::MAX), "4294967295"),
            (Boot::new().network(net("", "tap0")), "\"\""),
            (Boot::new().network(net("eth-0", "tap0")), "eth-0"),
            (Boot::new().network(net("eth0", "")), "tap device"),
            (Boot::new().network(net("eth0", "sixteen_bytes_xx")), "sixteen_bytes_xx"),
            (Boot::new().network(net("eth0", "a/b")), "a/b"),
            (Boot::new().network(net("eth0", "..")), ".."),
            (Boot::new().network(net("eth0", "tap%d")), "tap%d"),
            (Boot::new().network(net("e", "tap0")).network(net("e", "tap1")), "the id \"e\""),
            (
                Boot::new().network(net("e", "tap0")).network(net("f", "tap0")),
                "the tap device \"tap0\"",
            ),
            (mac("06:00:ac:10:00"), "06:00:ac:10:00"),
            (mac("06:00:ac:10:00:0g"), "0g"),
            (mac("06:00:ac:10:00:+2"), "+2"),
            (mac("06-00-ac-10-00-02"), "06-00"),
            (mac("01:00:5e:00:00:01"), "a group's"),
            (
                mac("06:00:ac:10:00:02").network(net("e", "tap1").mac("06:00:AC:10:00:02")),
                "06:00:ac:10:00:02",
            ),
            (
                Boot::new().network(net("eth0", "tap0").tx_rate_limiter(none)),
                "ops bucket has size 0",
            ),
        ] {
            let error = VmConfig::new(&boot, files(Vec::new())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(tells), "{tells}: {error}");
        }
    }

    #[test]
    fn drives_are_refused_by_name() {
        for id in ["", "a-b", "a.img", "a/b", "\u{e9}"] {
            assert_eq!(
                DriveConfig::new(id, "/x").unwrap_err().kind(),
                ErrorKind::InvalidInput,
                "{id}"
            );
        }
        let drive = |id: &str| DriveConfig::new(id, "/x").unwrap();
        let refused = |drives: Vec<DriveConfig>, tells: &str| {
            let error = VmConfig::new(&Boot::new(), files(drives)).unwrap_err();
            assert!(error.to_string().contains(tells), "{error}");
        };
        refused(vec![drive("a"), drive("a")], "the id \"a\"");
        refused(vec![drive("a").root_device(true), drive("b").root_device(true)], "2 of them");
        refused(vec![drive("a").vhost_user("/s").io_engine(IoEngine::Async)], "no engine");
        refused(vec![drive("a").partuuid("1")], "partition");
        refused(vec![drive("a").root_device(true).partuuid("../1")], "../1");
        refused(
            vec![drive("a").rate_limiter(RateLimiter::new().bandwidth(TokenBucket::new(1, 0)))],
            "0 ms",
        );
    }
}

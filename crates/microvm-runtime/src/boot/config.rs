//! `vm.json`: the document that Firecracker reads with `--config-file`.

use jail_cmd::in_jail;
use serde::Serialize;

use super::{Boot, DriveConfig, NetworkInterface};
use crate::error::{ErrorKind, Failure, Result};

/// Most vCPUs, in every release.
const MAX_VCPUS: u8 = 32;

/// Longest kernel command line, in bytes, less what Firecracker adds to it.
const MAX_KERNEL_ARGS: usize = 1536;

/// Smallest context id of a guest: 0 to 2 are the hypervisor, the loopback and the host.
const MIN_CID: u32 = 3;

/// The whole configuration, checked, in Firecracker's own words. Only fields that release 1.0.0 knew are written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct VmConfig {
    boot_source: BootSource,
    drives: Vec<DriveConfig>,
    machine_config: MachineConfig,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    network_interfaces: Vec<NetworkInterface>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vsock: Option<Vsock>,
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
struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u64,
    // An error on aarch64 in some releases even when it is false.
    #[serde(skip_serializing_if = "is_false")]
    smt: bool,
    #[serde(skip_serializing_if = "is_false")]
    track_dirty_pages: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Vsock {
    guest_cid: u32,
    uds_path: String,
}

impl VmConfig {
    /// The configuration of a VM that boots `kernel`, a path in the jail.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the field's name and value where no Firecracker would take it.
    pub(crate) fn new(boot: &Boot, kernel: &str, initrd: Option<&str>, drives: Vec<DriveConfig>) -> Result<Self> {
        check_machine(boot)?;
        check_kernel_args(boot.kernel_args.as_deref())?;
        for drive in &drives {
            drive.check()?;
        }
        for interface in &boot.networks {
            interface.check()?;
        }
        unique("drives", "id", drives.iter().map(DriveConfig::id))?;
        unique("network interfaces", "id", boot.networks.iter().map(NetworkInterface::id))?;
        unique("network interfaces", "tap device", boot.networks.iter().map(NetworkInterface::tap))?;
        unique("network interfaces", "MAC address", boot.networks.iter().filter_map(NetworkInterface::guest_mac))?;
        let roots = drives.iter().filter(|drive| drive.is_root_device()).count();
        if roots > 1 {
            return Err(Failure::invalid("plan the drives", format!("{roots} of them are the root device")));
        }
        if let Some(cid) = boot.vsock
            && !(MIN_CID..u32::MAX).contains(&cid)
        {
            return Err(Failure::invalid("plan the vsock device", format!("{cid} is no context id of a guest"))
                .hinted(format!("{MIN_CID} to {}", u32::MAX - 1)));
        }
        Ok(Self {
            boot_source: BootSource {
                kernel_image_path: kernel.to_owned(),
                initrd_path: initrd.map(str::to_owned),
                boot_args: boot.kernel_args.clone(),
            },
            drives,
            machine_config: MachineConfig {
                vcpu_count: boot.vcpus,
                mem_size_mib: boot.memory_mib,
                smt: boot.smt,
                track_dirty_pages: boot.track_dirty_pages,
            },
            network_interfaces: boot.networks.clone(),
            vsock: boot
                .vsock
                .map(|guest_cid| Vsock { guest_cid, uds_path: format!("/{}", in_jail::VSOCK) }),
        })
    }

    /// The document.
    pub(crate) fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map_err(|error| Failure::new(ErrorKind::InvalidInput, "write the VM's configuration").source_of(error))
    }
}

fn check_machine(boot: &Boot) -> Result<()> {
    let operation = "plan the machine";
    let vcpus = boot.vcpus;
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(Failure::invalid(operation, format!("it has {vcpus} vCPUs")).hinted(format!("1 to {MAX_VCPUS}")));
    }
    if boot.smt && vcpus != 1 && vcpus % 2 == 1 {
        return Err(Failure::invalid(operation, format!("it has {vcpus} vCPUs and hyper-threads"))
            .hinted("with `smt`, one vCPU or an even number"));
    }
    // Firecracker counts in bytes, in 64 bits.
    if boot.memory_mib == 0 || boot.memory_mib.checked_mul(1 << 20).is_none() {
        return Err(Failure::invalid(operation, format!("it has {} MiB of memory", boot.memory_mib)).hinted("1 or more"));
    }
    Ok(())
}

fn check_kernel_args(args: Option<&str>) -> Result<()> {
    let Some(args) = args else { return Ok(()) };
    let operation = "plan the kernel arguments";
    if let Some(bad) = args.chars().find(|&char| !(' '..='~').contains(&char)) {
        return Err(Failure::invalid(operation, format!("{bad:?} is in them")).hinted("printable ASCII only"));
    }
    if args.len() > MAX_KERNEL_ARGS {
        return Err(Failure::invalid(operation, format!("they have {} bytes", args.len()))
            .hinted(format!("at most {MAX_KERNEL_ARGS}")));
    }
    Ok(())
}

/// What names a device: the API takes nothing else.
pub(super) fn check_id(operation: &str, id: &str) -> Result<()> {
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(Failure::invalid(operation, format!("{id:?} is no id for Firecracker")).hinted("letters, digits and `_`"))
}

fn unique(things: &str, what: &str, names: impl Iterator<Item = impl Into<String>>) -> Result<()> {
    let mut seen = std::collections::BTreeSet::new();
    for name in names {
        let name = name.into();
        if !seen.insert(name.clone()) {
            return Err(Failure::invalid(format!("plan the {things}"), format!("two have the {what} {name:?}")));
        }
    }
    Ok(())
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

//! vCPUs and memory in Firecracker's configuration.

use serde::Serialize;

use super::{Boot, CpuTemplate, HugePages};
use crate::error::{Error, Result};

/// Most vCPUs, in every release.
const MAX_VCPUS: u8 = 32;

/// The section `machine-config`. Fields with Firecracker's default value are not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct MachineConfig {
    vcpu_count: u8,
    mem_size_mib: u64,
    // An error on aarch64 in some releases even when it is false.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    smt: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    track_dirty_pages: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    cpu_template: Option<CpuTemplate>,
    #[serde(skip_serializing_if = "Option::is_none")]
    huge_pages: Option<HugePages>,
}

impl MachineConfig {
    pub(super) fn new(boot: &Boot) -> Result<Self> {
        check(boot)?;
        Ok(Self {
            vcpu_count: boot.vcpus,
            mem_size_mib: boot.memory_mib,
            smt: boot.smt,
            track_dirty_pages: boot.track_dirty_pages,
            cpu_template: boot.cpu_template,
            huge_pages: boot.huge_pages,
        })
    }
}

fn check(boot: &Boot) -> Result<()> {
    let operation = "plan the machine";
    let (vcpus, mib) = (boot.vcpus, boot.memory_mib);
    if !(1..=MAX_VCPUS).contains(&vcpus) {
        return Err(Error::invalid(operation, format!("it has {vcpus} vCPUs"))
            .hinted(format!("Give the machine 1 to {MAX_VCPUS} vCPUs.")));
    }
    if boot.smt && vcpus != 1 && vcpus % 2 == 1 {
        return Err(Error::invalid(operation, format!("it has {vcpus} vCPUs and hyper-threads"))
            .hinted("With `smt`, give the machine one vCPU or an even number."));
    }
    // Firecracker counts in bytes, in 64 bits.
    if mib == 0 || mib.checked_mul(1 << 20).is_none() {
        return Err(Error::invalid(operation, format!("it has {mib} MiB of memory"))
            .hinted("Give the guest 1 MiB or more."));
    }
    if boot.huge_pages == Some(HugePages::Mib2) && mib % 2 == 1 {
        return Err(Error::invalid(
            operation,
            format!("it has {mib} MiB of memory in pages of 2 MiB"),
        )
        .hinted("Give the guest an even number of MiB."));
    }
    if boot.cpu_template.is_some() && boot.cpu_config.is_some() {
        return Err(Error::invalid(operation, "it has two CPU templates")
            .hinted("Leave `cpu_template` or `cpu_config` out."));
    }
    if boot.cpu_config.as_ref().is_some_and(|template| !template.is_object()) {
        return Err(Error::invalid(operation, "its CPU template is no JSON object")
            .hinted("Give a template as `cpu-config` of Firecracker describes one."));
    }
    boot.cpu_template.map_or(Ok(()), CpuTemplate::check)
}

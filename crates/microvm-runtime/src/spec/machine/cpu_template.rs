//! Firecracker's own CPU templates.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text_form::text_form;

/// A CPU template of Firecracker's: a set of CPU features that are hidden from the guest, so that VMs on different
/// processors see the same ones.
///
/// Firecracker refuses a template for another vendor or model than the host's. Templates of a caller's own are JSON: see
/// [`Boot::cpu_config`](crate::Boot::cpu_config).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CpuTemplate {
    /// Intel: like a C3 instance.
    C3,
    /// Intel: like a T2 instance.
    T2,
    /// Intel: T2, for snapshots between Skylake and Cascade Lake. Firecracker 1.1.1.
    T2S,
    /// Intel: T2, like Cascade Lake, for a fleet with AMD processors of T2A. Firecracker 1.3.0.
    T2CL,
    /// AMD: like T2CL. Firecracker 1.3.0.
    T2A,
    /// Arm: Neoverse V1 as an N1. Firecracker 1.4.0.
    V1N1,
}

text_form!(CpuTemplate, "CPU template", {
    C3 => "C3", T2 => "T2", T2S => "T2S", T2CL => "T2CL", T2A => "T2A", V1N1 => "V1N1",
});

impl CpuTemplate {
    /// Refuses a template of another architecture.
    pub(super) fn check(self) -> Result<()> {
        let of_arm = self == Self::V1N1;
        let host = std::env::consts::ARCH;
        if of_arm == (host == "aarch64") {
            return Ok(());
        }
        Err(Error::invalid("plan the CPU template", format!("{self:?} is no template for {host}"))
            .hinted("Choose a template for the host's processor, or leave the template out."))
    }
}

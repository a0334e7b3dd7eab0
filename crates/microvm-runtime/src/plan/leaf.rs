//! The control group of a VM, and the choice of the version.

use jail_cgroup::{CgroupVersion, Host, LeafPlan};
use jail_cmd::{JailId, ParentCgroup};

use crate::config::JailerConfig;
use crate::error::Result;
use crate::spec::JailSpec;

/// The leaf of this VM: of the version it insists on, else of the configured one where that keeps its limits. None where
/// it has no limits and the host no hierarchy: nothing is lost then but killing and accounting per VM.
pub(super) fn plan(
    config: &JailerConfig,
    spec: &JailSpec,
    jail_id: &JailId,
) -> Result<Option<LeafPlan>> {
    let parent = ParentCgroup::new(&config.cgroup_parent)?;
    let (preferred, other) = match config.cgroup_v2 {
        true => (CgroupVersion::V2, CgroupVersion::V1),
        false => (CgroupVersion::V1, CgroupVersion::V2),
    };
    let mut limits = spec.limits.clone();
    if let (Some(node), None) = (config.numa_node, limits.numa()) {
        limits = limits.numa_node(node);
    }
    let host = Host::discover()?;
    let of = |version| LeafPlan::new(&host, version, parent.as_str(), jail_id.as_str(), &limits);
    Ok(match spec.cgroup_version {
        Some(version) => Some(of(version)?),
        None if limits.is_empty() => match of(preferred).or_else(|_| of(other)) {
            Err(error) if error.kind() != jail_cgroup::ErrorKind::Unsupported => {
                return Err(error.into());
            }
            leaf => leaf.ok(),
        },
        None => Some(of(host.pick(preferred, &limits)?)?),
    })
}

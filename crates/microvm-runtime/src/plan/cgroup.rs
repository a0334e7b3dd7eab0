//! Which control group a VM gets, on which version, and how its jailer is made to join it.

use jail_cgroup::{Host, LeafPlan, Limits, Version};
use jail_cmd::{CgroupSetting, CgroupVersion, JailId, ParentCgroup};
use serde::{Deserialize, Serialize};

use crate::config::JailerConfig;
use crate::error::Result;
use crate::spec::JailSpec;

/// The control group a VM will be in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedCgroup {
    /// The leaf and its limits; none where no limit was asked for and the host has no hierarchy for a leaf.
    ///
    /// On v2 the jailer is born in it (`clone3(2)` with `CLONE_INTO_CGROUP`), and has nothing to join.
    pub leaf: Option<LeafPlan>,
    /// What `--parent-cgroup` names to a jailer that has something to join.
    pub parent: ParentCgroup,
    /// What is passed as `--cgroup`, on v1: by it the jailer joins the leaf.
    pub settings: Vec<CgroupSetting>,
}

/// The control group of this VM: of the version it insists on, else of the configured one where that keeps its limits.
pub(super) fn plan(
    config: &JailerConfig,
    spec: &JailSpec,
    jail_id: &JailId,
) -> Result<PlannedCgroup> {
    let parent = ParentCgroup::new(&config.cgroup_parent)?;
    let (preferred, other) = match config.cgroup_v2 {
        true => (Version::V2, Version::V1),
        false => (Version::V1, Version::V2),
    };
    let mut limits = spec.limits.clone();
    if let (Some(node), None) = (config.numa_node, limits.numa()) {
        limits = limits.numa_node(node);
    }
    let host = Host::discover()?;
    let with = |version| with_leaf(&host, version, &parent, jail_id, &limits);
    match spec.cgroup_version {
        Some(version) => with(by_jail_cgroup(version)),
        None if limits.is_empty() => {
            Ok(with(preferred).or_else(|_| with(other)).unwrap_or_else(|_| {
                // Nothing was asked for, so nothing is lost but killing and accounting per VM.
                PlannedCgroup { leaf: None, parent: parent.clone(), settings: Vec::new() }
            }))
        }
        None => with(host.pick(preferred, &limits)?),
    }
}

/// A leaf of this version, and how the jailer is made to join it.
fn with_leaf(
    host: &Host,
    version: Version,
    parent: &ParentCgroup,
    jail_id: &JailId,
    limits: &Limits,
) -> Result<PlannedCgroup> {
    let leaf = LeafPlan::new(host, version, parent.as_str(), jail_id.as_str(), limits)?;
    let settings = match version {
        Version::V1 => leaf.settings(),
        Version::V2 => Vec::new(),
    };
    let settings = settings.into_iter().map(|(file, value)| CgroupSetting::new(file, value));
    let settings = settings.collect::<std::result::Result<_, _>>()?;
    Ok(PlannedCgroup { leaf: Some(leaf), parent: parent.clone(), settings })
}

fn by_jail_cgroup(version: CgroupVersion) -> Version {
    match version {
        CgroupVersion::V1 => Version::V1,
        CgroupVersion::V2 => Version::V2,
    }
}

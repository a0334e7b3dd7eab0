//! Which control group a VM gets, on which version, and how its jailer is made to join it.

use jail_cgroup::{Host, LeafPlan, Limits, Version};
use jail_cmd::{CgroupSetting, CgroupVersion, Feature, JailId, JailerVersion, ParentCgroup};
use serde::{Deserialize, Serialize};

use crate::config::JailerConfig;
use crate::error::{ErrorKind, Failure, Result};
use crate::spec::JailSpec;

/// The control group a VM will be in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedCgroup {
    /// The version named to the jailer.
    pub version: CgroupVersion,
    /// What `--parent-cgroup` names.
    pub parent: ParentCgroup,
    /// What is passed as `--cgroup`.
    pub settings: Vec<CgroupSetting>,
    /// The leaf and its limits; none where no limit was asked for and the host has no hierarchy for a leaf.
    pub leaf: Option<LeafPlan>,
}

/// The control group of this VM: of the version it insists on, else of the configured one where that keeps its limits.
pub(super) fn plan(
    config: &JailerConfig,
    release: Option<JailerVersion>,
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
    let with = |version| with_leaf(&host, version, release, &parent, jail_id, &limits);
    match spec.cgroup_version {
        Some(version) => with(by_jail_cgroup(version)),
        None if limits.is_empty() => {
            Ok(with(preferred).or_else(|_| with(other)).unwrap_or_else(|_| {
                // Nothing was asked for, so nothing is lost but killing and accounting per VM.
                PlannedCgroup {
                    version: by_jail_cmd(preferred),
                    parent: parent.clone(),
                    settings: Vec::new(),
                    leaf: None,
                }
            }))
        }
        None => with(host.pick(preferred, &limits)?),
    }
}

/// A leaf of this version, and how this release of the jailer is made to join it.
fn with_leaf(
    host: &Host,
    version: Version,
    release: Option<JailerVersion>,
    parent: &ParentCgroup,
    jail_id: &JailId,
    limits: &Limits,
) -> Result<PlannedCgroup> {
    let leaf = LeafPlan::new(host, version, parent.as_str(), jail_id.as_str(), limits)?;
    let joins_parent = release.is_none_or(|release| release.supports(Feature::JoinsParentCgroup));
    let version = by_jail_cmd(version);
    if version == CgroupVersion::V2 && joins_parent {
        let parent = parent.join(jail_id);
        return Ok(PlannedCgroup { version, parent, settings: Vec::new(), leaf: Some(leaf) });
    }
    let settings = leaf.settings().into_iter().map(|(file, value)| CgroupSetting::new(file, value));
    let settings = settings.collect::<std::result::Result<Vec<_>, _>>()?;
    if settings.is_empty() {
        return Err(Failure::new(ErrorKind::Unsupported, "plan the control group")
            .because("this release of the jailer joins no group without a `--cgroup`, and the host offers none to name")
            .hinted("use jailer 1.6 or newer, or control groups v1"));
    }
    Ok(PlannedCgroup { version, parent: parent.clone(), settings, leaf: Some(leaf) })
}

fn by_jail_cmd(version: Version) -> CgroupVersion {
    match version {
        Version::V1 => CgroupVersion::V1,
        Version::V2 => CgroupVersion::V2,
    }
}

fn by_jail_cgroup(version: CgroupVersion) -> Version {
    match version {
        CgroupVersion::V1 => Version::V1,
        CgroupVersion::V2 => Version::V2,
    }
}

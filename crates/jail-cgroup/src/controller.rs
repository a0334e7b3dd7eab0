//! The controllers of control groups.

use std::fmt;

use crate::CgroupVersion;

/// Resource controller of either version (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// CPU accounting; part of the core in v2.
    Cpuacct,
    /// CPUs and memory nodes that may be used.
    Cpuset,
    /// Memory.
    Memory,
    /// Number of tasks.
    Pids,
    /// Block devices; `blkio` in v1.
    Io,
    /// Huge pages.
    Hugetlb,
    /// Freezing and thawing; part of the core in v2.
    Freezer,
    /// Access to devices; v1 only.
    Devices,
    /// Network classes; v1 only.
    NetCls,
    /// Network priorities; v1 only.
    NetPrio,
    /// Performance events.
    PerfEvent,
    /// RDMA resources.
    Rdma,
    /// Scalar resources, which have no separate controller.
    Misc,
}

impl Controller {
    pub(crate) const ALL: [Self; 14] = [
        Self::Cpu,
        Self::Cpuacct,
        Self::Cpuset,
        Self::Memory,
        Self::Pids,
        Self::Io,
        Self::Hugetlb,
        Self::Freezer,
        Self::Devices,
        Self::NetCls,
        Self::NetPrio,
        Self::PerfEvent,
        Self::Rdma,
        Self::Misc,
    ];

    /// Returns the kernel's name in `version`. The names differ for [`Io`](Self::Io) only.
    #[must_use]
    pub fn name(self, version: CgroupVersion) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => match version {
                CgroupVersion::V1 => "blkio",
                CgroupVersion::V2 => "io",
            },
            Self::Hugetlb => "hugetlb",
            Self::Freezer => "freezer",
            Self::Devices => "devices",
            Self::NetCls => "net_cls",
            Self::NetPrio => "net_prio",
            Self::PerfEvent => "perf_event",
            Self::Rdma => "rdma",
            Self::Misc => "misc",
        }
    }

    /// Returns the controller of the name `name` in `version`; `None` for a name unknown to this crate.
    #[must_use]
    pub fn from_name(version: CgroupVersion, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.name(version) == name)
    }

    /// Returns true if v2 does this for every group, without a controller to enable.
    pub(crate) fn is_core_in_v2(self) -> bool {
        matches!(self, Self::Cpuacct | Self::Freezer | Self::PerfEvent)
    }
}

/// The v2 name.
impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name(CgroupVersion::V2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            for controller in Controller::ALL {
                let name = controller.name(version);
                assert_eq!(Controller::from_name(version, name), Some(controller));
            }
        }
        assert_eq!(Controller::from_name(CgroupVersion::V1, "io"), None);
        assert_eq!(Controller::from_name(CgroupVersion::V2, "blkio"), None);
    }
}

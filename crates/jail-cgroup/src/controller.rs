//! The two versions of control groups, and the controllers they have.

use std::fmt;

/// A version of control groups: a v1 hierarchy per controller, or the one unified v2 hierarchy (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum Version {
    /// Legacy: a hierarchy per controller, or per set of controllers mounted together.
    V1,
    /// Unified: one hierarchy for all controllers.
    V2,
}

impl Version {
    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V1 => Self::V2,
            Self::V2 => Self::V1,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

/// A resource controller (cgroups(7)), by whichever version has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Controller {
    /// CPU time.
    Cpu,
    /// CPU accounting; part of the core in v2.
    Cpuacct,
    /// Which CPUs and which memory nodes.
    Cpuset,
    /// Memory.
    Memory,
    /// How many tasks.
    Pids,
    /// Block devices; `blkio` in v1.
    Io,
    /// Huge pages.
    Hugetlb,
    /// Stopping everything at once; part of the core in v2.
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
    /// Scalar resources without a controller of their own.
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

    /// The kernel's name for it in `version`; they differ for [`Io`](Self::Io) only.
    #[must_use]
    pub fn name(self, version: Version) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Io => match version {
                Version::V1 => "blkio",
                Version::V2 => "io",
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

    /// The controller that `version` calls `name`; `None` for one this crate has nothing to do with.
    #[must_use]
    pub fn from_name(version: Version, name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|controller| controller.name(version) == name)
    }

    /// Whether v2 does this for every group, with no controller to enable.
    pub(crate) fn is_core_in_v2(self) -> bool {
        matches!(self, Self::Cpuacct | Self::Freezer | Self::PerfEvent)
    }
}

/// Its v2 name.
impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name(Version::V2))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_go_both_ways() {
        for version in [Version::V1, Version::V2] {
            for controller in Controller::ALL {
                let name = controller.name(version);
                assert_eq!(Controller::from_name(version, name), Some(controller));
            }
        }
        assert_eq!(Controller::from_name(Version::V1, "io"), None);
        assert_eq!(Controller::from_name(Version::V2, "blkio"), None);
    }
}

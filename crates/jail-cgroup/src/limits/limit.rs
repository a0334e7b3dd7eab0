//! The names of the limits.

use std::fmt;

/// Name of a limit: a method of [`Limits`](crate::Limits).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Limit {
    /// [`Limits::memory_max`](crate::Limits::memory_max)
    MemoryMax,
    /// [`Limits::memory_high`](crate::Limits::memory_high)
    MemoryHigh,
    /// [`Limits::memory_swap_max`](crate::Limits::memory_swap_max)
    MemorySwapMax,
    /// [`Limits::oom_group`](crate::Limits::oom_group)
    OomGroup,
    /// [`Limits::cpus`](crate::Limits::cpus)
    Cpus,
    /// [`Limits::cpu_weight`](crate::Limits::cpu_weight)
    CpuWeight,
    /// [`Limits::cpuset_cpus`](crate::Limits::cpuset_cpus)
    CpusetCpus,
    /// [`Limits::cpuset_mems`](crate::Limits::cpuset_mems)
    CpusetMems,
    /// [`Limits::numa_node`](crate::Limits::numa_node)
    NumaNode,
    /// [`Limits::pids_max`](crate::Limits::pids_max)
    PidsMax,
    /// [`Limits::io`](crate::Limits::io)
    Io,
    /// [`Limits::hugetlb`](crate::Limits::hugetlb)
    Hugetlb,
}

impl Limit {
    /// Returns the name of the method, such as `memory_max`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MemoryMax => "memory_max",
            Self::MemoryHigh => "memory_high",
            Self::MemorySwapMax => "memory_swap_max",
            Self::OomGroup => "oom_group",
            Self::Cpus => "cpus",
            Self::CpuWeight => "cpu_weight",
            Self::CpusetCpus => "cpuset_cpus",
            Self::CpusetMems => "cpuset_mems",
            Self::NumaNode => "numa_node",
            Self::PidsMax => "pids_max",
            Self::Io => "io",
            Self::Hugetlb => "hugetlb",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

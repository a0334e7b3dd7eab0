//! What a group may use: one set of limits for both versions.

use std::ops::RangeInclusive;

use crate::io_limit::IoLimit;
use crate::{ByteSize, CpuSet, Error, Limit, Result};

/// The kernel's limit to a limit: one more than there can be pids (`PID_MAX_LIMIT`).
const PIDS: RangeInclusive<u64> = 1..=4_194_304;
/// cpu.weight, as cgroup-v2.rst has it.
const WEIGHT: RangeInclusive<u32> = 1..=10_000;
/// The kernel's smallest quota, 1 ms, in a period of 100 ms; and more CPUs than any kernel is built for.
const CPUS: RangeInclusive<f64> = 0.01..=65_536.0;

/// The period of a CPU quota, the kernel's default.
pub(crate) const PERIOD_US: u32 = 100_000;

/// The quota that makes `cpus` of a period.
pub(crate) fn quota_us(cpus: f64) -> String {
    format!("{:.0}", cpus * f64::from(PERIOD_US))
}

/// What a group may use. Empty, it may use what its parent may.
///
/// The same for v1 and v2; the unit is in the type or named. Values are checked as a whole when a
/// [`LeafPlan`](crate::LeafPlan) is made of them, before anything is touched.
///
/// ```
/// # use jail_cgroup::{ByteSize, Limits};
/// let limits = Limits::new().memory_max(ByteSize::mib(512)).cpus(1.0).pids_max(64);
/// limits.check()?;
///
/// let error = Limits::new().cpus(-1.0).check().unwrap_err();
/// assert_eq!(error.to_string(), "accept the limits: cpus -1 is not within 0.01 to 65536");
/// # Ok::<(), jail_cgroup::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(default, deny_unknown_fields))]
#[must_use]
pub struct Limits {
    pub(crate) memory_max: Option<ByteSize>,
    pub(crate) memory_high: Option<ByteSize>,
    pub(crate) memory_swap_max: Option<ByteSize>,
    pub(crate) oom_group: Option<bool>,
    pub(crate) cpus: Option<f64>,
    pub(crate) cpu_weight: Option<u32>,
    pub(crate) cpuset_cpus: Option<CpuSet>,
    pub(crate) cpuset_mems: Option<CpuSet>,
    pub(crate) numa_node: Option<u32>,
    pub(crate) pids_max: Option<u64>,
    pub(crate) io: Vec<IoLimit>,
    /// Size of the pages, most bytes of them.
    pub(crate) hugetlb: Vec<(ByteSize, ByteSize)>,
}

impl Limits {
    /// No limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// The most memory: beyond it the group reclaims its own, and then is OOM-killed.
    ///
    /// v2 `memory.max`; v1 `memory.limit_in_bytes`. Rounded down to whole pages by the kernel.
    pub fn memory_max(mut self, size: ByteSize) -> Self {
        self.memory_max = Some(size);
        self
    }

    /// The memory beyond which the group is slowed down and reclaimed from, but not killed.
    ///
    /// v2 `memory.high`; v1 has nothing that does this (its soft limit acts only when the whole host is short).
    pub fn memory_high(mut self, size: ByteSize) -> Self {
        self.memory_high = Some(size);
        self
    }

    /// The most swap, beside memory; zero for none.
    ///
    /// v2 `memory.swap.max`; v1 `memory.memsw.limit_in_bytes`, which limits the sum, and so needs
    /// [`memory_max`](Self::memory_max) too.
    pub fn memory_swap_max(mut self, size: ByteSize) -> Self {
        self.memory_swap_max = Some(size);
        self
    }

    /// Whether the OOM killer takes the whole group, not only its largest process.
    ///
    /// v2 `memory.oom.group`; v1 cannot, there `false` is all one can ask for.
    pub fn oom_group(mut self, whole: bool) -> Self {
        self.oom_group = Some(whole);
        self
    }

    /// The most CPU time per time: 0.25 is a quarter of one CPU, 2.0 is all of two.
    ///
    /// v2 `cpu.max`; v1 `cpu.cfs_quota_us`; both over a period of 100 ms. At least 0.01.
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// The share of contended CPU time, against its siblings' shares: 1 to 10000, 100 is normal.
    ///
    /// v2 `cpu.weight`; v1 `cpu.shares` of the same proportion (100 is 1024).
    pub fn cpu_weight(mut self, weight: u32) -> Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// The CPUs it may run on (`cpuset.cpus`).
    pub fn cpuset_cpus(mut self, cpus: CpuSet) -> Self {
        self.cpuset_cpus = Some(cpus);
        self
    }

    /// The memory nodes it may allocate from (`cpuset.mems`).
    pub fn cpuset_mems(mut self, nodes: CpuSet) -> Self {
        self.cpuset_mems = Some(nodes);
        self
    }

    /// Memory from one NUMA node, and its CPUs: `cpuset.mems`, and `cpuset.cpus` unless
    /// [`cpuset_cpus`](Self::cpuset_cpus) says which.
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// The most tasks, threads counted (`pids.max`).
    pub fn pids_max(mut self, tasks: u64) -> Self {
        self.pids_max = Some(tasks);
        self
    }

    /// Bandwidth and operations of one block device; once per device.
    ///
    /// v2 `io.max`, which also holds for buffered writes where the filesystem does writeback per group (ext4, xfs, btrfs);
    /// v1 `blkio.throttle.*`, which holds for reads and direct writes only.
    pub fn io(mut self, limit: IoLimit) -> Self {
        self.io.push(limit);
        self
    }

    /// The most bytes in huge pages of `page` bytes; once per page size.
    ///
    /// v2 `hugetlb.<size>.max`; v1 `hugetlb.<size>.limit_in_bytes`.
    pub fn hugetlb(mut self, page: ByteSize, max: ByteSize) -> Self {
        self.hugetlb.push((page, max));
        self
    }

    /// Whether nothing is limited.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The NUMA node asked for.
    #[must_use]
    pub fn numa(&self) -> Option<u32> {
        self.numa_node
    }

    /// Checks all values, as far as they can be wrong on every host.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the limit.
    pub fn check(&self) -> Result<()> {
        self.check_memory()?;
        if let Some(cpus) = self.cpus
            && !CPUS.contains(&cpus)
        {
            return Err(not_within(Limit::Cpus, cpus, CPUS.start(), CPUS.end()));
        }
        if let Some(weight) = self.cpu_weight
            && !WEIGHT.contains(&weight)
        {
            return Err(not_within(Limit::CpuWeight, weight, WEIGHT.start(), WEIGHT.end()));
        }
        if let Some(tasks) = self.pids_max
            && !PIDS.contains(&tasks)
        {
            return Err(not_within(Limit::PidsMax, tasks, PIDS.start(), PIDS.end()));
        }
        self.check_cpuset()?;
        self.check_hugetlb()?;
        for (index, limit) in self.io.iter().enumerate() {
            limit.check()?;
            if self.io.iter().skip(index + 1).any(|other| other.device() == limit.device()) {
                return Err(Error::invalid(
                    Limit::Io,
                    format!("names the device {} twice", limit.name()),
                ));
            }
        }
        Ok(())
    }

    fn check_memory(&self) -> Result<()> {
        let sizes = [(Limit::MemoryMax, self.memory_max), (Limit::MemoryHigh, self.memory_high)];
        match sizes.into_iter().find(|(_, size)| *size == Some(ByteSize::default())) {
            Some((limit, _)) => Err(Error::invalid(limit, "of 0 bytes lets nothing run")),
            None => Ok(()),
        }
    }

    fn check_cpuset(&self) -> Result<()> {
        let sets = [(Limit::CpusetCpus, &self.cpuset_cpus), (Limit::CpusetMems, &self.cpuset_mems)];
        for (limit, set) in sets {
            if set.as_ref().is_some_and(CpuSet::is_empty) {
                return Err(Error::invalid(limit, "is an empty set"));
            }
        }
        match (self.numa_node, &self.cpuset_mems) {
            (Some(node), Some(mems)) if *mems != CpuSet::from_iter([node]) => Err(Error::invalid(
                Limit::NumaNode,
                format!("{node} contradicts cpuset_mems {mems}"),
            )),
            _ => Ok(()),
        }
    }

    fn check_hugetlb(&self) -> Result<()> {
        for (index, (page, _)) in self.hugetlb.iter().enumerate() {
            if !page.as_bytes().is_power_of_two() || *page < ByteSize::kib(4) {
                return Err(Error::invalid(Limit::Hugetlb, format!("{page} is no size of a page")));
            }
            if self.hugetlb.iter().skip(index + 1).any(|(other, _)| other == page) {
                return Err(Error::invalid(
                    Limit::Hugetlb,
                    format!("names the page size {page} twice"),
                ));
            }
        }
        Ok(())
    }
}

fn not_within<T: std::fmt::Display>(limit: Limit, value: T, first: &T, last: &T) -> Error {
    Error::invalid(limit, format!("{value} is not within {first} to {last}"))
}

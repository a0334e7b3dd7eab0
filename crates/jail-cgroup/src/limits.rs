//! Limits of a leaf, for both versions: [`Limits`].

mod cpu_set;
mod io;
mod limit;
mod size;

use std::ops::RangeInclusive;

pub use cpu_set::CpuSet;
pub use io::IoLimit;
pub use limit::Limit;
pub use size::ByteSize;

use crate::{Error, Result};

/// Most devices with limits: more than any kernel accepts at a time would be a mistake.
const DEVICES_MAX: usize = 256;
/// Most page sizes with limits: no architecture has as many.
const PAGE_SIZES_MAX: usize = 16;

/// Range of the kernel: up to the number of possible pids (`PID_MAX_LIMIT`).
const PIDS: RangeInclusive<u64> = 1..=4_194_304;
/// Range of `cpu.weight` in cgroup-v2.rst.
const WEIGHT: RangeInclusive<u32> = 1..=10_000;
/// From the kernel's smallest quota, 1 ms of 100 ms, to more CPUs than any kernel supports.
const CPUS: RangeInclusive<f64> = 0.01..=65_536.0;

/// Period of a CPU quota: the kernel's default.
pub(crate) const PERIOD_US: u32 = 100_000;

/// Returns the quota for `cpus`, in microseconds of a period.
pub(crate) fn quota_us(cpus: f64) -> String {
    format!("{:.0}", cpus * f64::from(PERIOD_US))
}

/// Limits of a leaf. A resource without a limit is limited by the parent only.
///
/// The limits are the same for v1 and v2. [`LeafPlan::new`](crate::LeafPlan::new) checks all values before anything is
/// touched.
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
    /// Page size and limit in bytes.
    pub(crate) hugetlb: Vec<(ByteSize, ByteSize)>,
}

impl Limits {
    /// Returns no limits.
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the memory. At the limit the kernel reclaims memory of the leaf, and then kills a process (OOM).
    ///
    /// v2 `memory.max`; v1 `memory.limit_in_bytes`. The kernel rounds down to whole pages.
    pub fn memory_max(mut self, size: ByteSize) -> Self {
        self.memory_max = Some(size);
        self
    }

    /// Sets the memory above which the kernel slows the leaf down and reclaims its memory, without a kill.
    ///
    /// v2 `memory.high`; refused on v1, whose soft limit acts only if the whole host is short of memory.
    pub fn memory_high(mut self, size: ByteSize) -> Self {
        self.memory_high = Some(size);
        self
    }

    /// Limits the swap, beside the memory; zero for none.
    ///
    /// v2 `memory.swap.max`; v1 `memory.memsw.limit_in_bytes`, which limits the sum and therefore needs
    /// [`memory_max`](Self::memory_max) too.
    pub fn memory_swap_max(mut self, size: ByteSize) -> Self {
        self.memory_swap_max = Some(size);
        self
    }

    /// Makes the OOM killer kill the whole leaf instead of the largest process.
    ///
    /// v2 `memory.oom.group`; v1 accepts `false` only.
    pub fn oom_group(mut self, whole: bool) -> Self {
        self.oom_group = Some(whole);
        self
    }

    /// Limits the CPU time, in CPUs: 0.25 is a quarter of one CPU, 2.0 is two CPUs. At least 0.01.
    ///
    /// v2 `cpu.max`; v1 `cpu.cfs_quota_us`; both over a period of 100 ms.
    pub fn cpus(mut self, cpus: f64) -> Self {
        self.cpus = Some(cpus);
        self
    }

    /// Sets the share of contended CPU time, relative to siblings: 1 to 10000, 100 is the default.
    ///
    /// v2 `cpu.weight`; v1 `cpu.shares` of the same proportion (100 is 1024).
    pub fn cpu_weight(mut self, weight: u32) -> Self {
        self.cpu_weight = Some(weight);
        self
    }

    /// Sets the CPUs that may be used (`cpuset.cpus`).
    pub fn cpuset_cpus(mut self, cpus: CpuSet) -> Self {
        self.cpuset_cpus = Some(cpus);
        self
    }

    /// Sets the memory nodes that may be used (`cpuset.mems`).
    pub fn cpuset_mems(mut self, nodes: CpuSet) -> Self {
        self.cpuset_mems = Some(nodes);
        self
    }

    /// Binds to one NUMA node: `cpuset.mems`, and `cpuset.cpus` without [`cpuset_cpus`](Self::cpuset_cpus).
    pub fn numa_node(mut self, node: u32) -> Self {
        self.numa_node = Some(node);
        self
    }

    /// Limits the number of tasks, which are processes and threads (`pids.max`).
    pub fn pids_max(mut self, tasks: u64) -> Self {
        self.pids_max = Some(tasks);
        self
    }

    /// Limits bandwidth and operations of one block device; once per device, for at most 256 devices.
    ///
    /// v2 `io.max`, which also limits buffered writes if the filesystem does writeback per group (ext4, xfs, btrfs);
    /// v1 `blkio.throttle.*`, which limits reads and direct writes only.
    pub fn io(mut self, limit: IoLimit) -> Self {
        self.io.push(limit);
        self
    }

    /// Limits the bytes in huge pages of `page` bytes; once per page size.
    ///
    /// v2 `hugetlb.<size>.max`; v1 `hugetlb.<size>.limit_in_bytes`.
    pub fn hugetlb(mut self, page: ByteSize, max: ByteSize) -> Self {
        self.hugetlb.push((page, max));
        self
    }

    /// Returns true if no limit is set.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the limit of [`memory_max`](Self::memory_max).
    #[must_use]
    pub fn memory(&self) -> Option<ByteSize> {
        self.memory_max
    }

    /// Returns the limit of [`cpus`](Self::cpus), in CPUs.
    #[must_use]
    pub fn cpu(&self) -> Option<f64> {
        self.cpus
    }

    /// Returns the NUMA node.
    #[must_use]
    pub fn numa(&self) -> Option<u32> {
        self.numa_node
    }

    /// Checks the values for errors on every host.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput), naming the limit.
    pub fn check(&self) -> Result<()> {
        self.check_memory()?;
        if let Some(cpus) = self.cpus.filter(|cpus| !CPUS.contains(cpus)) {
            return Err(not_within(Limit::Cpus, cpus, CPUS.start(), CPUS.end()));
        }
        if let Some(weight) = self.cpu_weight.filter(|weight| !WEIGHT.contains(weight)) {
            return Err(not_within(Limit::CpuWeight, weight, WEIGHT.start(), WEIGHT.end()));
        }
        if let Some(tasks) = self.pids_max.filter(|tasks| !PIDS.contains(tasks)) {
            return Err(not_within(Limit::PidsMax, tasks, PIDS.start(), PIDS.end()));
        }
        self.check_cpuset()?;
        self.check_hugetlb()?;
        if self.io.len() > DEVICES_MAX {
            return Err(Error::invalid(
                Limit::Io,
                format!("names more than {DEVICES_MAX} devices"),
            ));
        }
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
            Some((limit, _)) => Err(Error::invalid(limit, "of 0 bytes stops every process")),
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
        if self.hugetlb.len() > PAGE_SIZES_MAX {
            let reason = format!("names more than {PAGE_SIZES_MAX} page sizes");
            return Err(Error::invalid(Limit::Hugetlb, reason));
        }
        for (index, (page, _)) in self.hugetlb.iter().enumerate() {
            if !page.as_bytes().is_power_of_two() || *page < ByteSize::kib(4) {
                return Err(Error::invalid(Limit::Hugetlb, format!("{page} is no page size")));
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

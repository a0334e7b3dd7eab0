//! Limits as files of v1 groups (Documentation/admin-guide/cgroup-v1).

use crate::limits::{PERIOD_US, quota_us};
use crate::plan::setting::{Write, page_name};
use crate::{ByteSize, Controller, Error, ErrorKind, Limit, Limits, Result};

/// Returns the values that v1 writes for `limits`, in order, or an error for a limit that v1 lacks.
pub(crate) fn writes(limits: &Limits) -> Result<Vec<Write>> {
    let mut writes = Vec::new();
    let mut add = |limit, controller, file: &str, value: Option<String>| {
        writes.extend(value.map(|value| Write { limit, controller, file: file.to_owned(), value }));
    };
    let bytes = |size: ByteSize| size.as_bytes().to_string();
    let (cpu, cpuset, memory) = (Controller::Cpu, Controller::Cpuset, Controller::Memory);
    if limits.memory_high.is_some() {
        return Err(missing(Limit::MemoryHigh, "v1 has no limit that slows a group down"));
    }
    if limits.oom_group == Some(true) {
        return Err(missing(Limit::OomGroup, "v1 kills one process at a time"));
    }
    add(
        Limit::CpusetMems,
        cpuset,
        "cpuset.mems",
        limits.cpuset_mems.as_ref().map(ToString::to_string),
    );
    add(
        Limit::CpusetCpus,
        cpuset,
        "cpuset.cpus",
        limits.cpuset_cpus.as_ref().map(ToString::to_string),
    );
    add(Limit::MemoryMax, memory, "memory.limit_in_bytes", limits.memory_max.map(bytes));
    if let Some(swap) = limits.memory_swap_max {
        let Some(max) = limits.memory_max else {
            let reason = "v1 limits the sum of memory and swap, so it needs a memory_max too";
            return Err(missing(Limit::MemorySwapMax, reason));
        };
        let sum = ByteSize::bytes(max.as_bytes().saturating_add(swap.as_bytes()));
        add(Limit::MemorySwapMax, memory, "memory.memsw.limit_in_bytes", Some(bytes(sum)));
    }
    add(Limit::Cpus, cpu, "cpu.cfs_period_us", limits.cpus.map(|_| PERIOD_US.to_string()));
    add(Limit::Cpus, cpu, "cpu.cfs_quota_us", limits.cpus.map(quota_us));
    let shares = |weight: u32| (u64::from(weight) * 1024 / 100).to_string();
    add(Limit::CpuWeight, cpu, "cpu.shares", limits.cpu_weight.map(shares));
    add(
        Limit::PidsMax,
        Controller::Pids,
        "pids.max",
        limits.pids_max.map(|tasks| tasks.to_string()),
    );
    for limit in &limits.io {
        for (_, file, value) in limit.values() {
            add(Limit::Io, Controller::Io, file, Some(format!("{} {value}", limit.name())));
        }
    }
    for (page, max) in &limits.hugetlb {
        let file = format!("hugetlb.{}.limit_in_bytes", page_name(*page));
        add(Limit::Hugetlb, Controller::Hugetlb, &file, Some(bytes(*max)));
    }
    Ok(writes)
}

fn missing(limit: Limit, reason: &'static str) -> Error {
    Error::new(ErrorKind::Unsupported, "use control groups v1").of_limit(limit).because(reason)
}

/// Returns true if a launcher's setting `file=value` ends up with this value.
///
/// The official jailer first fills the file with the parent's first line, and only then writes the value. That fails for
/// a file that is empty in every parent (`blkio.throttle.*`); for `memory.limit_in_bytes` under a lower
/// `memory.memsw.limit_in_bytes`; and for a period under which the quota is more than the parent's.
pub(crate) fn can_be_setting(write: &Write, all: &[Write]) -> bool {
    match write.file.as_str() {
        "cpu.cfs_period_us" => false,
        "memory.limit_in_bytes" => !all.iter().any(|other| other.limit == Limit::MemorySwapMax),
        file => !file.starts_with("blkio.throttle."),
    }
}

/// Returns a setting with which a launcher joins the hierarchy of `controller` and changes nothing; `None` if no file
/// accepts the parent's value (`cpuacct.usage`, `blkio.throttle.*`).
pub(crate) fn neutral(controller: Controller) -> Option<(&'static str, &'static str)> {
    match controller {
        Controller::Freezer => Some(("freezer.state", "THAWED")),
        Controller::Pids => Some(("pids.max", "max")),
        Controller::Memory => Some(("memory.limit_in_bytes", "-1")),
        Controller::Cpu => Some(("cpu.shares", "1024")),
        _ => None,
    }
}

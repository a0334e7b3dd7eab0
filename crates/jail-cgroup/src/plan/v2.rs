//! Limits as files of v2 groups (Documentation/admin-guide/cgroup-v2.rst).

use crate::limits::{PERIOD_US, quota_us};
use crate::plan::setting::{Write, page_name};
use crate::{ByteSize, Controller, Limit, Limits};

/// Returns the values that v2 writes for `limits`, in order. v2 has all limits.
pub(crate) fn writes(limits: &Limits) -> Vec<Write> {
    let mut writes = Vec::new();
    let mut add = |limit, controller, file: &str, value: Option<String>| {
        writes.extend(value.map(|value| Write { limit, controller, file: file.to_owned(), value }));
    };
    let bytes = |size: ByteSize| size.as_bytes().to_string();
    let (cpu, cpuset, memory) = (Controller::Cpu, Controller::Cpuset, Controller::Memory);
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
    add(Limit::MemoryMax, memory, "memory.max", limits.memory_max.map(bytes));
    add(Limit::MemoryHigh, memory, "memory.high", limits.memory_high.map(bytes));
    add(Limit::MemorySwapMax, memory, "memory.swap.max", limits.memory_swap_max.map(bytes));
    let flag = |on: bool| u8::from(on).to_string();
    add(Limit::OomGroup, memory, "memory.oom.group", limits.oom_group.map(flag));
    let quota = |cpus| format!("{} {PERIOD_US}", quota_us(cpus));
    add(Limit::Cpus, cpu, "cpu.max", limits.cpus.map(quota));
    add(Limit::CpuWeight, cpu, "cpu.weight", limits.cpu_weight.map(|weight| weight.to_string()));
    add(
        Limit::PidsMax,
        Controller::Pids,
        "pids.max",
        limits.pids_max.map(|tasks| tasks.to_string()),
    );
    for limit in &limits.io {
        let values: Vec<_> =
            limit.values().map(|(key, _, value)| format!(" {key}={value}")).collect();
        let line = format!("{}{}", limit.name(), values.concat());
        add(Limit::Io, Controller::Io, "io.max", Some(line));
    }
    for (page, max) in &limits.hugetlb {
        let file = format!("hugetlb.{}.max", page_name(*page));
        add(Limit::Hugetlb, Controller::Hugetlb, &file, Some(bytes(*max)));
    }
    writes
}

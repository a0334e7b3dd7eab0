//! Limits read back from the kernel.

use std::path::PathBuf;

use crate::leaf::Leaf;
use crate::{CgroupVersion, Controller, Limit, Result};

/// Limit in effect, as the kernel reports it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct EffectiveLimit {
    /// Name of the limit.
    pub limit: Limit,
    /// Controller that enforces the limit.
    pub controller: Controller,
    /// File that was read.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    pub path: PathBuf,
    /// Value that was asked for; `None` without a limit, or for a leaf that another process made.
    pub asked: Option<String>,
    /// Value that the kernel reports, on one line; for `io.max` and its like, the line of the device.
    pub value: String,
}

impl EffectiveLimit {
    /// Returns true if the kernel rounded a number, such as a size that is no whole number of pages.
    #[must_use]
    pub fn is_rounded(&self) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        match (self.asked.as_deref().and_then(number), number(&self.value)) {
            (Some(asked), Some(value)) => asked != value,
            _ => false,
        }
    }
}

/// Files of the limits in each version, without files per device or per page size.
const FILES: [(CgroupVersion, Limit, Controller, &str); 18] = [
    (CgroupVersion::V2, Limit::MemoryMax, Controller::Memory, "memory.max"),
    (CgroupVersion::V2, Limit::MemoryHigh, Controller::Memory, "memory.high"),
    (CgroupVersion::V2, Limit::MemorySwapMax, Controller::Memory, "memory.swap.max"),
    (CgroupVersion::V2, Limit::OomGroup, Controller::Memory, "memory.oom.group"),
    (CgroupVersion::V2, Limit::Cpus, Controller::Cpu, "cpu.max"),
    (CgroupVersion::V2, Limit::CpuWeight, Controller::Cpu, "cpu.weight"),
    (CgroupVersion::V2, Limit::CpusetCpus, Controller::Cpuset, "cpuset.cpus"),
    (CgroupVersion::V2, Limit::CpusetMems, Controller::Cpuset, "cpuset.mems"),
    (CgroupVersion::V2, Limit::PidsMax, Controller::Pids, "pids.max"),
    (CgroupVersion::V1, Limit::MemoryMax, Controller::Memory, "memory.limit_in_bytes"),
    (CgroupVersion::V1, Limit::MemorySwapMax, Controller::Memory, "memory.memsw.limit_in_bytes"),
    (CgroupVersion::V1, Limit::Cpus, Controller::Cpu, "cpu.cfs_period_us"),
    (CgroupVersion::V1, Limit::Cpus, Controller::Cpu, "cpu.cfs_quota_us"),
    (CgroupVersion::V1, Limit::CpuWeight, Controller::Cpu, "cpu.shares"),
    (CgroupVersion::V1, Limit::CpusetCpus, Controller::Cpuset, "cpuset.cpus"),
    (CgroupVersion::V1, Limit::CpusetMems, Controller::Cpuset, "cpuset.mems"),
    (CgroupVersion::V1, Limit::PidsMax, Controller::Pids, "pids.max"),
    (CgroupVersion::V1, Limit::OomGroup, Controller::Memory, "memory.oom.group"),
];

impl Leaf {
    /// Reads every limit back: first the limits that were asked for, as written, then the others of the leaf's controllers.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) if the leaf was removed.
    pub fn effective(&self) -> Result<Vec<EffectiveLimit>> {
        self.refuse_removed()?;
        let mut all = Vec::new();
        for setting in &self.writes {
            let Some(dir) = self.dir_of(setting.controller) else { continue };
            let Some(text) = dir.read_if_exists(&setting.file)? else { continue };
            all.push(EffectiveLimit {
                limit: setting.limit,
                controller: setting.controller,
                path: setting.path.clone(),
                value: line_of(&String::from_utf8_lossy(&text), setting.limit, &setting.value),
                asked: Some(setting.value.clone()),
            });
        }
        for (version, limit, controller, file) in FILES {
            if version != self.version() {
                continue;
            }
            let Some(dir) = self.dir_of(controller) else { continue };
            let path = dir.path().join(file);
            if all.iter().any(|one| one.path == path) {
                continue;
            }
            if let Some(text) = dir.read_if_exists(file)? {
                let value = String::from_utf8_lossy(text.trim_ascii()).into_owned();
                all.push(EffectiveLimit { limit, controller, path, asked: None, value });
            }
        }
        Ok(all)
    }
}

/// Returns the line of the file for the value that was asked for.
fn line_of(text: &str, limit: Limit, asked: &str) -> String {
    let device = asked.split(' ').next().filter(|_| limit == Limit::Io);
    let line = match device {
        Some(device) => text.lines().find(|line| line.split(' ').next() == Some(device)),
        None => Some(text),
    };
    line.unwrap_or_default().trim().to_owned()
}

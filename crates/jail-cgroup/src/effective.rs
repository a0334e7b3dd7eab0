//! What has become of the limits: read back from the kernel.

use std::path::PathBuf;

use crate::leaf::Leaf;
use crate::{Controller, Limit, Result, Version};

/// A limit as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Effective {
    /// The limit.
    pub limit: Limit,
    /// The controller that keeps it.
    pub controller: Controller,
    /// The file it was read from.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    pub path: PathBuf,
    /// What was asked for; none of what was not limited, or of a leaf that another process made.
    pub asked: Option<String>,
    /// What the kernel says, on one line: of `io.max` and its like, the line of the device asked for.
    pub value: String,
}

impl Effective {
    /// Whether a number was asked for and another one is in force, as a size that is no whole number of pages.
    #[must_use]
    pub fn is_rounded(&self) -> bool {
        let number = |text: &str| text.parse::<u64>().ok();
        match (self.asked.as_deref().and_then(number), number(&self.value)) {
            (Some(asked), Some(value)) => asked != value,
            _ => false,
        }
    }
}

/// The files in which each version keeps limits, but for those that come per device or per page size.
const FILES: [(Version, Limit, Controller, &str); 18] = [
    (Version::V2, Limit::MemoryMax, Controller::Memory, "memory.max"),
    (Version::V2, Limit::MemoryHigh, Controller::Memory, "memory.high"),
    (Version::V2, Limit::MemorySwapMax, Controller::Memory, "memory.swap.max"),
    (Version::V2, Limit::OomGroup, Controller::Memory, "memory.oom.group"),
    (Version::V2, Limit::Cpus, Controller::Cpu, "cpu.max"),
    (Version::V2, Limit::CpuWeight, Controller::Cpu, "cpu.weight"),
    (Version::V2, Limit::CpusetCpus, Controller::Cpuset, "cpuset.cpus"),
    (Version::V2, Limit::CpusetMems, Controller::Cpuset, "cpuset.mems"),
    (Version::V2, Limit::PidsMax, Controller::Pids, "pids.max"),
    (Version::V1, Limit::MemoryMax, Controller::Memory, "memory.limit_in_bytes"),
    (Version::V1, Limit::MemorySwapMax, Controller::Memory, "memory.memsw.limit_in_bytes"),
    (Version::V1, Limit::Cpus, Controller::Cpu, "cpu.cfs_period_us"),
    (Version::V1, Limit::Cpus, Controller::Cpu, "cpu.cfs_quota_us"),
    (Version::V1, Limit::CpuWeight, Controller::Cpu, "cpu.shares"),
    (Version::V1, Limit::CpusetCpus, Controller::Cpuset, "cpuset.cpus"),
    (Version::V1, Limit::CpusetMems, Controller::Cpuset, "cpuset.mems"),
    (Version::V1, Limit::PidsMax, Controller::Pids, "pids.max"),
    (Version::V1, Limit::OomGroup, Controller::Memory, "memory.oom.group"),
];

impl Leaf {
    /// Reads every limit back: those asked for, in the order they were written, then the others its controllers have.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) where the leaf was removed.
    pub fn effective(&self) -> Result<Vec<Effective>> {
        self.refuse_if_gone()?;
        let mut all = Vec::new();
        for setting in &self.writes {
            let Some(dir) = self.dir_of(setting.controller) else { continue };
            let Some(text) = dir.read_if_there(&setting.file)? else { continue };
            all.push(Effective {
                limit: setting.limit,
                controller: setting.controller,
                path: setting.path.clone(),
                value: line_of(&text, setting.limit, &setting.value),
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
            if let Some(text) = dir.read_if_there(file)? {
                let value = text.trim().to_owned();
                all.push(Effective { limit, controller, path, asked: None, value });
            }
        }
        Ok(all)
    }
}

/// The line of the file that is about what was asked for.
fn line_of(text: &str, limit: Limit, asked: &str) -> String {
    let device = asked.split(' ').next().filter(|_| limit == Limit::Io);
    let line = match device {
        Some(device) => text.lines().find(|line| line.split(' ').next() == Some(device)),
        None => Some(text),
    };
    line.unwrap_or_default().trim().to_owned()
}

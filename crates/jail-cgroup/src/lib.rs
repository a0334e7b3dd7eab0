//! Find, make, limit, read, kill and remove a control group leaf on v1, v2 and hybrid hosts.

mod controller;
mod cpu_set;
mod create;
mod dir;
mod discover;
mod effective;
mod error;
#[cfg(test)]
mod fake;
mod freeze;
mod group_path;
mod host;
mod io_limit;
mod keyed;
mod kill;
mod leaf;
mod leaf_id;
mod limit;
mod limits;
mod membership;
mod mount;
mod plan;
mod pressure;
mod remove;
mod size;
mod stats;
mod v1;
mod v2;
mod wait;

pub use controller::{Controller, Version};
pub use cpu_set::CpuSet;
pub use discover::numa_node_cpus;
pub use effective::Effective;
pub use error::{Error, ErrorKind, Result};
pub use host::{Host, HostLayout, HostTexts, WhyNot};
pub use io_limit::IoLimit;
pub use leaf::Leaf;
pub use leaf_id::LeafId;
pub use limit::Limit;
pub use limits::Limits;
pub use mount::Mount;
pub use plan::{LeafPlan, Setting};
pub use pressure::{Pressure, Stall};
pub use remove::RemoveReport;
pub use size::ByteSize;
pub use stats::{IoStats, MemoryEvents, Stats, Throttling};

//! The virtual machine, as types (vCPUs, memory, devices), and Firecracker's configuration with the first release of
//! each field.

mod balloon;
mod boot;
mod cpu_template;
mod device_id;
mod document;
mod drive;
mod entropy;
mod huge_pages;
mod machine_config;
mod memory_hotplug;
mod merge;
mod mmds;
mod network;
mod pmem;
mod rate_limiter;
mod releases;
#[cfg(test)]
mod releases_test;
mod serial;
mod vm_config;

pub use balloon::Balloon;
pub use boot::Boot;
pub use cpu_template::CpuTemplate;
pub(crate) use device_id::check_id;
pub(crate) use document::{ConfigRequest, Document};
pub(crate) use drive::DriveConfig;
pub use drive::{CacheType, IoEngine};
pub use entropy::Entropy;
pub use huge_pages::HugePages;
pub use memory_hotplug::MemoryHotplug;
pub use mmds::{Mmds, MmdsVersion};
pub use network::NetworkInterface;
pub(crate) use pmem::PmemConfig;
pub use rate_limiter::{RateLimiter, TokenBucket};
pub(crate) use releases::require;
pub use serial::Serial;
pub(crate) use vm_config::MachineFiles;

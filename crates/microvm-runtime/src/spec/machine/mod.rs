//! The virtual machine, as types (vCPUs, memory, kernel arguments, network interfaces, vsock), and Firecracker's
//! configuration file.

mod boot;
mod device_id;
mod drive;
mod network;
mod rate_limiter;
mod vm_config;

pub use boot::Boot;
pub(crate) use drive::DriveConfig;
pub use drive::{CacheType, IoEngine};
pub use network::NetworkInterface;
pub use rate_limiter::{RateLimiter, TokenBucket};
pub(crate) use vm_config::VmConfig;

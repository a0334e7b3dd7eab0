//! A running VM, and the end of a VM.

pub(crate) mod exit;
pub(crate) mod fleet;
mod handle;
pub(crate) mod hotplug;
mod metrics;
mod pause;
mod replace_drive;
pub(crate) mod shutdown;
mod staging;
mod update_limits;
pub(crate) mod vsock;

pub use handle::Vm;
pub(crate) use handle::*;

//! A running VM, and the end of a VM.

pub(crate) mod exit;
pub(crate) mod fleet;
mod handle;
mod metrics;
pub(crate) mod shutdown;

pub use handle::Vm;
pub(crate) use handle::*;

//! A running VM, and its end.

pub(crate) mod exit;
pub(crate) mod fleet;
mod handle;
mod metrics;
pub(crate) mod shutdown;

pub use handle::Vm;
pub(crate) use handle::*;

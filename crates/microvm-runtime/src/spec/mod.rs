//! The description of a VM: files, limits, user, network namespace, machine and options.

pub(crate) mod drive;
pub(crate) mod firecracker;
pub(crate) mod jail_spec;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod pmem;

pub use jail_spec::{JailSpec, User};
pub use network::Network;

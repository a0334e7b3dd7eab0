//! The system calls that no safe wrapper has: the only unsafe code of this crate.
#![expect(
    unsafe_code,
    reason = "clone3 and what its child calls, three ioctls, and probes of system calls and descriptors, each with its reason"
)]

mod child;
mod clone3;
mod credentials;
mod defaults;
mod descriptors;
mod network;
mod no_keys;
mod nsfs;
mod pidfd_info;
mod probe;
mod process_group;
mod signals;
mod spawn;

pub(crate) use descriptors::{is_free, pipe};
pub(crate) use network::NetworkNamespace;
pub(crate) use nsfs::{is_network_namespace, user_namespace_of};
pub(crate) use pidfd_info::reaped_status;
pub(crate) use probe::{JAILERS, OURS, Probe};
pub(crate) use process_group::process_group;
pub(crate) use signals::without_signals;
pub(crate) use spawn::{NewProcess, SpawnError, spawn};

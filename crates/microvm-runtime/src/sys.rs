//! The system calls of this crate: the only module that names rustix and libc, and the only unsafe code.
#![expect(
    unsafe_code,
    reason = "clone3 and what its child calls, a few ioctls, and probes of system calls and descriptors, each with its reason"
)]

mod child;
mod clone3;
mod credentials;
mod defaults;
mod descriptors;
mod epoll;
pub(crate) mod file;
mod inotify;
mod network;
mod no_keys;
mod nsfs;
pub(crate) mod pidfd;
mod pidfd_info;
mod probe;
pub(crate) mod process;
mod process_group;
mod signals;
#[cfg(test)]
mod skip;
mod spawn;
mod tap;
pub(crate) mod unix_socket;
mod wait;

pub(crate) use rustix::io::Errno;

pub(crate) use descriptors::{is_free, pipe};
pub(crate) use epoll::{Epoll, Wake};
pub(crate) use inotify::DirWatch;
pub(crate) use network::NetworkNamespace;
pub(crate) use nsfs::{is_network_namespace, user_namespace_of};
pub(crate) use pidfd_info::reaped_status;
pub(crate) use probe::{JAILERS, OURS, Probe};
pub(crate) use process_group::process_group;
pub(crate) use signals::without_signals;
pub(crate) use spawn::{NewProcess, SpawnError, spawn};
pub(crate) use tap::NewTap;
pub(crate) use wait::{Wanted, poll, poll_any};

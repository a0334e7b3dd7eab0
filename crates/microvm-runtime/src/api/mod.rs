//! Firecracker's API: a socket that was verified to be the VMM's, HTTP/1.1 over it, and the few requests that every VM
//! needs as typed calls. All others go through [`Api::request`].

mod client;
mod devices;
#[cfg(test)]
pub(crate) mod fuzz;
mod http;
mod instance;
mod socket;

pub use client::{Api, Response};
pub use instance::{Action, InstanceInfo, InstanceState};

pub(crate) use socket::{JailSocket, Purpose};

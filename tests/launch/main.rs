//! System tests of the whole: a jailed VM, in the official jailer and Firecracker where they are installed.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod bad_input;
mod boot;
mod capabilities;
mod compat;
mod contract;
mod drives;
mod ending;
mod errors;
mod examples;
mod fleet;
mod host;
mod host_conditions;
mod hostile;
mod inherited;
mod machine;
mod modes;
mod neighbours;
mod network;
mod older;
mod races;
mod removal;
mod restart;
mod running;
mod snapshot_attacks;
mod snapshots;
mod streams;
mod users;
mod vsock;

//! The small framework under the system tests.
//!
//! A test takes a [`Scratch`] directory, perhaps a real filesystem ([`LoopFs`]), does its work and lets go: everything
//! here undoes itself on drop, also when the test panics. What the machine cannot do is reported by [`skip`]; what it
//! should be able to do and fails is a panic.

#![expect(clippy::panic, reason = "the framework fails the test it runs in, with its own words")]

mod canary;
mod loop_device;
mod loop_fs;
pub mod mounts;
mod scratch;
mod skip;
mod sys;
mod tmpfs;

pub use canary::Canary;
pub use loop_device::LoopDevice;
pub use loop_fs::{FsKind, LoopFs};
pub use scratch::{DIR_ENV, Scratch, unique};
pub use skip::{SKIPS_ENV, skip};
pub use tmpfs::Tmpfs;

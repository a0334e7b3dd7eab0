//! The small framework under the system tests.
//!
//! A test takes a [`Scratch`] directory, perhaps a real filesystem ([`LoopFs`]) and the [`Binaries`] there are, does its
//! work and lets go: everything here undoes itself on drop, also when the test panics, and [`HostState`] looks whether
//! it did. What the machine cannot do is reported by [`skip`]; what it should be able to do and fails is a panic.

#![expect(clippy::panic, reason = "the framework fails the test it runs in, with its own words")]

mod binaries;
pub mod build;
mod canary;
mod cgroups;
mod host_state;
pub mod inherited;
mod loop_device;
mod loop_fs;
mod machine;
pub mod mounts;
mod netns;
mod privileges;
mod process;
mod race;
mod scratch;
mod skip;
mod sys;
mod tmpfs;

pub use binaries::{
    Binaries, BinaryKind, FIRECRACKER_ENV, GUEST_LINE, JAILER_ENV, OLD_JAILERS_ENV, STAND_INS_ENV,
    older_jailers,
};
pub use canary::Canary;
pub use cgroups::{cgroups_named, hierarchies, remove_cgroup};
pub use host_state::{HostState, left_by_run};
pub use loop_device::LoopDevice;
pub use loop_fs::{FsKind, LoopFs};
pub use machine::{kernel_at_least, kernel_tells_exit_of_strangers, kvm_works};
pub use netns::Netns;
pub use privileges::{become_user, with_effective};
pub use process::{KillOnDrop, as_user, reenter, role};
pub use race::{Round, long, race};
pub use scratch::{DIR_ENV, PREFIX, RUN_ENV, Scratch, new_run, unique};
pub use skip::{SKIPS_ENV, skip};
pub use tmpfs::Tmpfs;

//! The small framework under the system tests.
//!
//! A test uses a [`Scratch`] directory, [`Binaries`] and sometimes a real filesystem ([`LoopFs`]). Every type here
//! cleans up on drop, even if the test panics, and [`HostState`] checks that nothing is left. [`skip`] reports a
//! missing feature of the machine. A missing privilege or any other failure is a panic.

#![expect(clippy::panic, reason = "the framework fails the running test with a clear message")]

mod binaries;
pub mod build;
mod canary;
mod cgroups;
mod host_state;
pub mod inherited;
pub mod interrupt;
mod keys;
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
mod table;
mod tmpfs;

pub use binaries::{
    Binaries, BinaryKind, FIRECRACKER_ENV, GUEST_LINE, JAILER_ENV, OLD_JAILERS_ENV, STAND_INS_ENV,
    older_jailers,
};
pub use canary::Canary;
pub use cgroups::{cgroups_named, hierarchies, remove_cgroup};
pub use host_state::{HostState, left_by_run};
pub use keys::keys_of;
pub use loop_device::LoopDevice;
pub use loop_fs::{FsKind, LoopFs};
pub use machine::{available_memory, kernel_at_least, kernel_tells_exit_of_strangers, kvm_works};
pub use netns::Netns;
pub use privileges::{become_user, with_effective};
pub use process::{KillOnDrop, as_user, in_pid_namespace, reenter, role};
pub use race::{Round, long, race};
pub use scratch::{DIR_ENV, PREFIX, RUN_ENV, Scratch, new_run, unique};
pub use skip::{SKIPS_ENV, skip};
pub use sys::in_fork;
pub use table::Table;
pub use tmpfs::Tmpfs;

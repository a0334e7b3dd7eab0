//! Find, make, limit, read, kill and remove a control group leaf on v1, v2 and hybrid hosts.
//!
//! A *leaf* is a group of your own for some processes: one directory of the v2 hierarchy, or one in each v1 hierarchy that
//! is needed. What is in it is up to you: a virtual machine, a build, a test.
//!
//! # In two minutes
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use jail_cgroup::{ByteSize, Host, LeafPlan, Limits, CgroupVersion};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // What this host has: nothing is assumed, all is read from mountinfo and proven.
//! let host = Host::discover()?;
//! let limits = Limits::new().memory_max(ByteSize::mib(512)).cpus(0.5).pids_max(64);
//! // v2 where it can do all of these, else v1; else an error that says which limit lacks what.
//! let version = host.pick(CgroupVersion::V2, &limits)?;
//!
//! // Pure: prints what will be written, changes nothing.
//! let plan = LeafPlan::new(&host, version, "jobs", "build-7", &limits)?;
//! for write in plan.writes() {
//!     println!("{write}");
//! }
//!
//! // All of it, or nothing: a value the kernel does not take or keep leaves no group behind.
//! let leaf = plan.create()?;
//! for limit in leaf.effective()?.iter().filter(|limit| limit.is_rounded()) {
//!     println!("the kernel rounded {limit:?}");
//! }
//!
//! let mut job = std::process::Command::new("make").spawn()?;
//! leaf.adopt(job.id())?;
//! assert!(leaf.contains(job.id())?);
//! let status = job.wait()?;
//! println!("{status}, {} OOM kills, {:?}", leaf.oom_kills()?, leaf.stats()?);
//!
//! // Whatever it has left running goes with it.
//! leaf.kill()?;
//! leaf.wait_empty(Duration::from_secs(5))?;
//! leaf.remove()?;
//! # Ok(())
//! # }
//! ```
//!
//! `examples/limit.rs` is a command that does this to any other command, and holds it back until it has joined.
//!
//! # The parts
//!
//! - [`Host`] says which hierarchies and [`Controller`]s there are, and why one is [`Unavailable`].
//! - [`Limits`] is one set for both versions; its types carry the units ([`ByteSize`], [`CpuSet`], [`IoLimit`]).
//! - [`LeafPlan`] is a leaf to be made; [`LeafPlan::settings`] is what to tell a launcher that joins by itself.
//! - [`Leaf`] is one that exists: join it, read its [`Stats`], freeze, kill, wait, remove.
//! - [`LeafPlan::owned_by`] marks a leaf, [`LeafId::open`] checks the mark, [`Host::leaves_owned_by`] finds it.
//! - [`LeafId`] is what to write down, so that another process finds the leaf again, after a crash for instance.
//!
//! # Rules it keeps
//!
//! - Below a mount everything goes through a held descriptor: no name leads out, no link is followed.
//! - What a version lacks is an error with the limit's name, never a silent no.
//! - A parent that it had to make goes with its last leaf; one that was there stays, and so do its processes.
//! - A leaf is joined, killed and removed by what the kernel says of it, not by what was once written down.
//!
//! # What it does not do
//!
//! It starts no processes, moves none but those you name, mounts nothing, and writes to no group but the leaf, the parents
//! it makes and the `cgroup.subtree_control` on the way. It keeps no lock: give each leaf's name one owner at a time. Of
//! systemd it knows nothing; give it a parent that systemd has delegated (`Delegate=yes`).

mod controller;
mod dir;
mod error;
#[cfg(test)]
mod fake;
#[cfg(test)]
mod fuzz;
mod host;
mod leaf;
mod limits;
#[cfg(feature = "serde")]
mod path_text;
mod plan;
mod sys;
mod version;

pub use controller::Controller;
pub use error::{Error, ErrorKind, Result};
pub use host::{Host, HostLayout, HostTexts, Mount, Unavailable, numa_node_cpus};
pub use leaf::{
    EffectiveLimit, IoStats, Leaf, LeafId, LimitChange, MemoryEvents, OwnedLeaves, Pressure,
    RemoveReport, SpawnInto, Stall, Stats, Throttling,
};
pub use limits::{ByteSize, CpuSet, IoLimit, Limit, Limits};
pub use plan::{LeafPlan, Setting};
pub use version::CgroupVersion;

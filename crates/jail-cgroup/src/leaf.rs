//! A leaf that exists: [`Leaf`].

mod create;
mod effective;
mod freeze;
#[cfg(test)]
pub(crate) mod fuzz;
mod id;
mod join;
pub(crate) mod keyed;
mod kill;
mod members;
mod open;
mod owner;
mod pressure;
mod remove;
mod search;
mod stats;
mod update;
mod wait;

use std::path::PathBuf;

pub use effective::EffectiveLimit;
pub(crate) use id::HierarchyPath;
pub use id::LeafId;
pub use join::SpawnInto;
pub(crate) use owner::Owner;
pub use pressure::{Pressure, Stall};
pub use remove::RemoveReport;
pub use search::OwnedLeaves;
pub use stats::{IoStats, MemoryEvents, Stats, Throttling};
pub use update::LimitChange;

use crate::dir::Dir;
use crate::plan::Setting;
use crate::sys::Access;
use crate::{CgroupVersion, Controller, Result};

/// Control group of its own for some processes, held open: one directory in v2, one per hierarchy in v1.
///
/// Made by [`LeafPlan::create`](crate::LeafPlan::create), found again by [`LeafId::open`].
///
/// # Caveats
/// Dropping a `Leaf` leaves the control group and its processes alone; [`remove`](Self::remove) is explicit.
#[derive(Debug)]
pub struct Leaf {
    id: LeafId,
    /// The directories that exist: a leaf that was half removed has fewer than the id.
    groups: Vec<Group>,
    /// Values that were asked for, if this process made the leaf.
    writes: Vec<Setting>,
}

/// Directory of a leaf in one hierarchy.
#[derive(Debug)]
struct Group {
    path: HierarchyPath,
    mount: Dir,
    /// Path below the mount that is held.
    below: PathBuf,
    /// Path from the hierarchy's root, as this process sees the root.
    full_path: PathBuf,
    dir: Dir,
}

impl Leaf {
    /// Returns the id that finds the leaf again.
    #[must_use]
    pub fn id(&self) -> &LeafId {
        &self.id
    }

    /// Returns the version of control groups that the leaf is of.
    #[must_use]
    pub fn version(&self) -> CgroupVersion {
        self.id.version
    }

    /// Returns the mark of the leaf's owner, if there is one.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.id.owner()
    }

    /// Returns the leaf's directories: one in v2, one per hierarchy in v1.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.groups.iter().map(|group| group.dir.path().to_owned())
    }

    /// Returns the group with the files of `controller`, if there is one. v2 has one group for all controllers.
    fn group_of(&self, controller: Controller) -> Option<&Group> {
        let mut groups = self.groups.iter();
        match self.version() {
            CgroupVersion::V1 => groups.find(|group| group.path.has(controller)),
            CgroupVersion::V2 => groups.next(),
        }
    }

    fn dir_of(&self, controller: Controller) -> Option<&Dir> {
        self.group_of(controller).map(|group| &group.dir)
    }

    /// Refuses a leaf that was removed: a removed group has no files, like a kernel that lacks them.
    fn refuse_removed(&self) -> Result<()> {
        self.groups
            .iter()
            .try_for_each(|group| group.dir.open_file(members::PROCS, Access::Read).map(drop))
    }
}

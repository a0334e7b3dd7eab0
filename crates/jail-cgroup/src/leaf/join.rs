//! Processes that join a leaf, or start in a leaf.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

#[cfg(doc)]
use crate::ErrorKind;
use crate::leaf::members::{PROCS, TASKS};
use crate::leaf::{HierarchyPath, Leaf};
use crate::sys::{Access, Errno};
use crate::{CgroupVersion, Controller, Result};

/// Descriptors with which a new process starts in a leaf: see [`Leaf::spawn_into`].
#[derive(Debug)]
#[non_exhaustive]
pub struct SpawnInto<'a> {
    /// v2: directory of the leaf, for `clone3(2)` with `CLONE_INTO_CGROUP` (Linux 5.7).
    pub group: Option<BorrowedFd<'a>>,
    /// v1: the `tasks` file in each hierarchy. A process with one thread writes `0` to each file. That moves the
    /// thread, and takes no lock (`cgroup_procs_write_start()`, Linux 5.6).
    pub tasks: Vec<OwnedFd>,
    /// v1: whether the write rebinds the writer's memory to the leaf's nodes (`cpuset_attach()`). A process that shares
    /// its memory, as after `vfork(2)`, must not write then.
    pub moves_memory: bool,
}

impl Leaf {
    /// Opens the descriptors with which a new process starts in the leaf.
    ///
    /// Such a process does not wait. A process that is moved in later ([`adopt`](Self::adopt), or by writing to
    /// `cgroup.procs`) waits for a grace period of the kernel in each hierarchy, often ten milliseconds, and every
    /// process of the host that starts or exits waits too (`cgroup_threadgroup_rwsem`).
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the leaf was removed, [`Privilege`](ErrorKind::Privilege) if the caller may
    /// not write to it.
    ///
    /// # Privileges
    /// Write access to the leaf: root, or the user to whom the leaf is delegated.
    pub fn spawn_into(&self) -> Result<SpawnInto<'_>> {
        let mut into = SpawnInto { group: None, tasks: Vec::new(), moves_memory: false };
        for group in &self.groups {
            match self.version() {
                CgroupVersion::V1 => {
                    into.tasks.push(group.dir.open_file(TASKS, Access::Write)?);
                    into.moves_memory |= group.path.has(Controller::Cpuset);
                }
                CgroupVersion::V2 => into.group = Some(group.dir.as_fd()),
            }
        }
        Ok(into)
    }

    /// Moves the process `pid`, with all threads, into the leaf in every hierarchy (`cgroup.procs`).
    ///
    /// Memory that is allocated stays charged to the old group. Children to come are in the leaf too; existing children
    /// stay in their group.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if there is no such process, [`Privilege`](ErrorKind::Privilege) if the caller
    /// may not move the process.
    pub fn adopt(&self, pid: u32) -> Result<()> {
        self.join(pid, |_| true)
    }

    /// Moves the process `pid` into the hierarchies that a launcher cannot join by
    /// [`LeafPlan::settings`](crate::LeafPlan::settings): v1's `blkio`, and `cpuacct` if it is mounted alone. Does
    /// nothing on v2.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub fn adopt_rest(&self, pid: u32) -> Result<()> {
        self.join(pid, |path| !path.joined_by_settings)
    }

    fn join(&self, pid: u32, wanted: impl Fn(&HierarchyPath) -> bool) -> Result<()> {
        for group in self.groups.iter().filter(|group| wanted(&group.path)) {
            group.dir.write(PROCS, pid.to_string()).map_err(|error| match error.errno() {
                Some(Errno::SRCH) => error.because(format!("there is no process {pid}")),
                // cgroup_procs_write_permission()
                Some(Errno::NOENT) if self.version() == CgroupVersion::V2 => error.because(format!(
                    "process {pid} or the group is outside this process's cgroup namespace, and v2 is mounted with nsdelegate"
                )),
                _ => error.because(format!("process {pid} cannot be moved here")),
            })?;
        }
        Ok(())
    }
}

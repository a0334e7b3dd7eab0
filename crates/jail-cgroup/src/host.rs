//! The control groups that a host offers: [`Host`].

mod discover;
pub(crate) mod membership;
mod mountinfo;
mod nodes;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

pub use discover::numa_node_cpus;
pub use mountinfo::Mount;

#[cfg(test)]
pub(crate) use mountinfo::parse as parse_mountinfo;

use crate::{CgroupVersion, Controller, CpuSet, Error, ErrorKind, Result};

/// Control group hierarchies of a host, as this process sees them.
///
/// ```no_run
/// use jail_cgroup::{Controller, Host, CgroupVersion};
///
/// let host = Host::discover()?;
/// println!("{:?}", host.layout());
/// if let Err(why) = host.usable(CgroupVersion::V2, Controller::Memory) {
///     println!("no memory limits by v2: {why}");
/// }
/// # Ok::<(), jail_cgroup::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Host {
    mounts: Vec<Mount>,
    /// Controllers that a v1 hierarchy holds, mounted or not; read from this machine when first needed.
    bound_to_v1: OnceLock<Vec<Controller>>,
    unified: Unified,
    /// CPUs of each memory node; read from this machine when first needed.
    nodes: OnceLock<BTreeMap<u32, CpuSet>>,
}

/// State of the group at the top of the v2 mount.
#[derive(Debug, Clone, Default)]
struct Unified {
    controllers: Vec<Controller>,
    enabled: Vec<Controller>,
    /// True if the group is below the hierarchy's root, as in a container.
    nested: bool,
    /// True if the group itself has processes.
    occupied: bool,
}

/// Texts of the kernel files from which a [`Host`] is read, for another host than this.
#[derive(Debug, Clone, Default)]
pub struct HostTexts<'a> {
    /// `/proc/self/mountinfo`.
    pub mountinfo: &'a [u8],
    /// `/proc/self/cgroup`.
    pub self_cgroup: &'a [u8],
    /// `cgroup.controllers` at the v2 mount.
    pub controllers: &'a str,
    /// `cgroup.subtree_control` at the v2 mount.
    pub subtree_control: &'a str,
    /// True if the v2 mount shows a group below the hierarchy's root, which has a `cgroup.type`.
    pub nested: bool,
    /// True if `cgroup.procs` at the v2 mount lists a process.
    pub occupied: bool,
    /// Memory nodes, each with the text of `cpulist`.
    pub nodes: &'a [(u32, &'a str)],
}

/// Layout of a host's hierarchies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostLayout {
    /// v1 hierarchies with controllers, no v2.
    V1,
    /// v2 only, beside v1 hierarchies without controllers.
    V2,
    /// Both: v1 with its controllers, v2 with the other controllers, often none.
    Hybrid,
    /// No hierarchy is mounted.
    Absent,
}

/// Reason for which a controller cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum Unavailable {
    /// No mounted hierarchy of the version has, or could have, the controller.
    #[error("no such hierarchy is mounted")]
    NotMounted,
    /// The mount is read-only.
    #[error("its hierarchy is mounted read-only")]
    ReadOnly,
    /// A v1 hierarchy holds the controller.
    #[error("a v1 hierarchy has it")]
    BoundToV1,
    /// v2 holds the controller.
    #[error("v2 has it")]
    BoundToV2,
    /// The controller is not delegated to this part of the hierarchy.
    #[error("it is not delegated to this part of the hierarchy")]
    NotDelegated,
    /// The group at the mount has processes, and therefore cannot enable controllers (the no-internal-process rule).
    #[error("the group at the mount has processes of its own")]
    InternalProcesses,
    /// The kernel lacks the controller, or the controller is disabled.
    #[error("this kernel does not offer it")]
    NotOffered,
}

impl Host {
    /// Parses a host from texts, without a look at this machine.
    #[must_use]
    pub fn from_texts(texts: &HostTexts<'_>) -> Self {
        let nodes = texts.nodes.iter();
        let nodes = nodes.filter_map(|(node, cpus)| Some((*node, cpus.parse().ok()?)));
        Self {
            bound_to_v1: OnceLock::from(membership::bound_to_v1(texts.self_cgroup)),
            nodes: OnceLock::from(nodes.collect::<BTreeMap<_, _>>()),
            ..Self::from_mounts(mountinfo::parse(texts.mountinfo), texts)
        }
    }

    /// Builds a host with the memory nodes and groups of this machine, not of the texts.
    pub(crate) fn from_mounts(mounts: Vec<Mount>, texts: &HostTexts<'_>) -> Self {
        let unified = Unified {
            controllers: names(texts.controllers),
            enabled: names(texts.subtree_control),
            nested: texts.nested,
            occupied: texts.occupied,
        };
        Self { mounts, bound_to_v1: OnceLock::new(), unified, nodes: OnceLock::new() }
    }

    /// Returns the layout of the hierarchies.
    #[must_use]
    pub fn layout(&self) -> HostLayout {
        let v1 = self.mounts.iter().any(|mount| !mount.controllers().is_empty());
        match (v1, self.v2_mount().is_some()) {
            (true, false) => HostLayout::V1,
            (false, true) => HostLayout::V2,
            (true, true) => HostLayout::Hybrid,
            (false, false) => HostLayout::Absent,
        }
    }

    /// Returns the mount of the v2 hierarchy. Of several mounts, a writable mount that shows the most.
    #[must_use]
    pub fn v2_mount(&self) -> Option<&Mount> {
        best(self.mounts.iter().filter(|mount| mount.version() == CgroupVersion::V2))
    }

    /// Returns the mount of the v1 hierarchy with `controller`. Of several mounts, prefers a writable one, then the one
    /// that shows the largest part of the hierarchy.
    #[must_use]
    pub fn v1_mount(&self, controller: Controller) -> Option<&Mount> {
        best(self.mounts.iter().filter(|mount| mount.controllers().contains(&controller)))
    }

    /// Returns all mounts of hierarchies, in the order of mountinfo.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Checks whether groups of `version` can have `controller`. `cpuacct` and `freezer` are built into v2.
    ///
    /// # Errors
    /// The reason for which the controller cannot be used.
    pub fn usable(
        &self,
        version: CgroupVersion,
        controller: Controller,
    ) -> Result<(), Unavailable> {
        match version {
            CgroupVersion::V1 => match self.v1_mount(controller) {
                None if self.unified.controllers.contains(&controller) => {
                    Err(Unavailable::BoundToV2)
                }
                None => Err(Unavailable::NotMounted),
                Some(mount) if mount.is_read_only() => Err(Unavailable::ReadOnly),
                Some(_) => Ok(()),
            },
            CgroupVersion::V2 => self.usable_v2(controller),
        }
    }

    /// Returns true if a v2 group has `controller`, or can enable it: [`usable`](Self::usable) without a reason.
    pub(crate) fn has_in_v2(&self, controller: Controller) -> bool {
        let on = controller.is_core_in_v2() || self.unified.controllers.contains(&controller);
        on && self.usable_v2(controller).is_ok()
    }

    /// Returns true if the kernel may have a hierarchy of `version` with one of `controllers`, mounted or not.
    pub(crate) fn may_have(&self, version: CgroupVersion, controllers: &[Controller]) -> bool {
        let bound = self.bound_to_v1.get_or_init(membership::read_bound_to_v1);
        version == CgroupVersion::V2
            || controllers.iter().any(|controller| bound.contains(controller))
    }

    fn usable_v2(&self, controller: Controller) -> Result<(), Unavailable> {
        let mount = self.v2_mount().ok_or(Unavailable::NotMounted)?;
        let Unified { controllers, enabled, nested, occupied } = &self.unified;
        if mount.is_read_only() {
            Err(Unavailable::ReadOnly)
        } else if controller.is_core_in_v2() {
            Ok(())
        } else if controllers.contains(&controller) {
            // The hierarchy's own root may enable controllers always.
            let ruled_out = *nested && *occupied && !enabled.contains(&controller);
            if ruled_out { Err(Unavailable::InternalProcesses) } else { Ok(()) }
        } else if self.bound_to_v1.get_or_init(membership::read_bound_to_v1).contains(&controller) {
            Err(Unavailable::BoundToV1)
        } else if *nested {
            Err(Unavailable::NotDelegated)
        } else {
            Err(Unavailable::NotOffered)
        }
    }

    /// Returns the CPUs of memory node `node`. This machine's nodes are read when first needed.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported), with the nodes of the host, if there is no such node; any other kind if
    /// the nodes cannot be read.
    pub fn node_cpus(&self, node: u32) -> Result<&CpuSet> {
        let nodes = match self.nodes.get() {
            Some(nodes) => nodes,
            None => {
                let read = nodes::read()?;
                self.nodes.get_or_init(|| read)
            }
        };
        nodes.get(&node).ok_or_else(|| {
            let nodes = CpuSet::from_iter(nodes.keys().copied());
            Error::new(ErrorKind::Unsupported, format!("find NUMA node {node}"))
                .because(format!("the host's nodes are {nodes}"))
                .hinted("Ask for a node that the host has.")
        })
    }
}

fn best<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Option<&'a Mount> {
    mounts.min_by_key(|mount| (mount.is_read_only(), mount.root().components().count()))
}

fn names(list: &str) -> Vec<Controller> {
    list.split_ascii_whitespace()
        .filter_map(|name| Controller::from_name(CgroupVersion::V2, name))
        .collect()
}

impl fmt::Display for HostLayout {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
            Self::Hybrid => "hybrid",
            Self::Absent => "absent",
        })
    }
}

//! What this host offers: hierarchies, controllers, memory nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::OnceLock;

use crate::mount::{self, Mount};
use crate::{
    Controller, CpuSet, Error, ErrorKind, Limits, Result, Version, discover, membership, plan,
};

/// The control group hierarchies of this host, as this process sees them.
///
/// ```no_run
/// use jail_cgroup::{Controller, Host, Version};
///
/// let host = Host::discover()?;
/// println!("{:?}", host.layout());
/// if let Err(why) = host.usable(Version::V2, Controller::Memory) {
///     println!("no memory limits by v2: {why}");
/// }
/// # Ok::<(), jail_cgroup::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Host {
    mounts: Vec<Mount>,
    /// Controllers that a v1 hierarchy holds, mounted or not: v2 cannot have them. As the nodes.
    bound_to_v1: OnceLock<Vec<Controller>>,
    unified: Unified,
    /// Of this machine's, read when they are first asked for.
    nodes: OnceLock<BTreeMap<u32, CpuSet>>,
}

/// The state of the group that the v2 mount shows at its top.
#[derive(Debug, Clone, Default)]
struct Unified {
    controllers: Vec<Controller>,
    enabled: Vec<Controller>,
    /// Is it a group below the hierarchy's root, as in a container?
    nested: bool,
    /// Does it have processes of its own?
    occupied: bool,
}

/// The texts a [`Host`] is read from, for a host that is not this one.
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
    /// Whether the v2 mount shows a group below the hierarchy's root: whether it has a `cgroup.type`.
    pub nested: bool,
    /// Whether `cgroup.procs` at the v2 mount names any process.
    pub occupied: bool,
    /// Each memory node and its `cpulist`.
    pub nodes: &'a [(u32, &'a str)],
}

/// How a host's hierarchies are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum HostLayout {
    /// v1 hierarchies with controllers, no v2.
    V1,
    /// v2 only; named v1 hierarchies, which have no controllers, do not count.
    V2,
    /// Both: v1 with the controllers bound to it, v2 beside it with the rest, often none.
    Hybrid,
    /// None is mounted.
    Absent,
}

/// Why a controller cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum WhyNot {
    /// No hierarchy of that version is mounted that has, or could have, it.
    #[error("no such hierarchy is mounted")]
    NotMounted,
    /// It is mounted read-only.
    #[error("its hierarchy is mounted read-only")]
    ReadOnly,
    /// A v1 hierarchy holds it.
    #[error("a v1 hierarchy has it")]
    BoundToV1,
    /// v2 holds it.
    #[error("v2 has it")]
    BoundToV2,
    /// This part of the hierarchy was not given it.
    #[error("it is not delegated to this part of the hierarchy")]
    NotDelegated,
    /// The top group has processes of its own, so it cannot pass controllers on (the no-internal-process rule).
    #[error("the group at the mount has processes of its own")]
    InternalProcesses,
    /// This kernel does not have it, or was told not to.
    #[error("this kernel does not offer it")]
    NotOffered,
}

impl Host {
    /// Reads a host from texts; pure, and proves nothing about the machine it runs on.
    #[must_use]
    pub fn from_texts(texts: &HostTexts<'_>) -> Self {
        let nodes = texts.nodes.iter();
        let nodes = nodes.filter_map(|(node, cpus)| Some((*node, cpus.parse().ok()?)));
        Self {
            bound_to_v1: OnceLock::from(membership::bound_to_v1(texts.self_cgroup)),
            nodes: OnceLock::from(nodes.collect::<BTreeMap<_, _>>()),
            ..Self::from_mounts(mount::parse_all(texts.mountinfo), texts)
        }
    }

    /// With this machine's memory nodes and groups, whatever the texts say of them.
    pub(crate) fn from_mounts(mounts: Vec<Mount>, texts: &HostTexts<'_>) -> Self {
        let unified = Unified {
            controllers: names(texts.controllers),
            enabled: names(texts.subtree_control),
            nested: texts.nested,
            occupied: texts.occupied,
        };
        Self { mounts, bound_to_v1: OnceLock::new(), unified, nodes: OnceLock::new() }
    }

    /// How the hierarchies are laid out.
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

    /// The v2 hierarchy's mount. Of several, one that can be written through and shows the most.
    #[must_use]
    pub fn v2_mount(&self) -> Option<&Mount> {
        best(self.mounts.iter().filter(|mount| mount.version() == Version::V2))
    }

    /// The mount of the v1 hierarchy that has `controller`. Of several, one that can be written through and shows the most.
    #[must_use]
    pub fn v1_mount(&self, controller: Controller) -> Option<&Mount> {
        best(self.mounts.iter().filter(|mount| mount.controllers().contains(&controller)))
    }

    /// All mounts of hierarchies, in mountinfo's order.
    #[must_use]
    pub fn mounts(&self) -> &[Mount] {
        &self.mounts
    }

    /// Whether groups of `version` can have `controller`.
    ///
    /// v2 does what v1's `cpuacct` and `freezer` do for every group; they are usable wherever v2 is.
    ///
    /// # Errors
    /// Why not, where it is not.
    pub fn usable(&self, version: Version, controller: Controller) -> Result<(), WhyNot> {
        match version {
            Version::V1 => match self.v1_mount(controller) {
                None if self.unified.controllers.contains(&controller) => Err(WhyNot::BoundToV2),
                None => Err(WhyNot::NotMounted),
                Some(mount) if mount.is_read_only() => Err(WhyNot::ReadOnly),
                Some(_) => Ok(()),
            },
            Version::V2 => self.usable_v2(controller),
        }
    }

    /// Whether a group of v2 has, or can be given, `controller`: as [`usable`](Self::usable), without asking the machine
    /// why not.
    pub(crate) fn has_in_v2(&self, controller: Controller) -> bool {
        let on = controller.is_core_in_v2() || self.unified.controllers.contains(&controller);
        on && self.usable_v2(controller).is_ok()
    }

    fn usable_v2(&self, controller: Controller) -> Result<(), WhyNot> {
        let mount = self.v2_mount().ok_or(WhyNot::NotMounted)?;
        let Unified { controllers, enabled, nested, occupied } = &self.unified;
        if mount.is_read_only() {
            Err(WhyNot::ReadOnly)
        } else if controller.is_core_in_v2() {
            Ok(())
        } else if controllers.contains(&controller) {
            // The hierarchy's own root is free of the rule.
            let ruled_out = *nested && *occupied && !enabled.contains(&controller);
            if ruled_out { Err(WhyNot::InternalProcesses) } else { Ok(()) }
        } else if self.bound_to_v1.get_or_init(discover::bound_to_v1).contains(&controller) {
            Err(WhyNot::BoundToV1)
        } else if *nested {
            Err(WhyNot::NotDelegated)
        } else {
            Err(WhyNot::NotOffered)
        }
    }

    /// The version to use for `limits`: `preferred` where it can do all of them, else the other where that can.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for limits that are wrong anywhere;
    /// [`Unsupported`](ErrorKind::Unsupported), saying what is missing where, when neither version can do them all.
    pub fn pick(&self, preferred: Version, limits: &Limits) -> Result<Version> {
        let mut reasons = Vec::new();
        for version in [preferred, preferred.other()] {
            match plan::check(self, version, limits) {
                Ok(()) => return Ok(version),
                Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
                Err(error) => {
                    let limit = error.limit().map(|limit| format!("{limit} ")).unwrap_or_default();
                    reasons.push(format!("{limit}{}", error.reason().unwrap_or("does not work")));
                }
            }
        }
        Err(Error::new(ErrorKind::Unsupported, "choose a version of control groups")
            .because(reasons.join("; "))
            .hinted("leave the limit out, or give this host the controller"))
    }

    /// The CPUs of memory node `node`.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the host has no such node; the nodes it has are named. Of this
    /// machine they are read when they are first asked for, and what reading answers is told.
    pub fn node_cpus(&self, node: u32) -> Result<&CpuSet> {
        let nodes = match self.nodes.get() {
            Some(nodes) => nodes,
            None => {
                let read = discover::nodes()?;
                self.nodes.get_or_init(|| read)
            }
        };
        nodes.get(&node).ok_or_else(|| {
            let nodes = CpuSet::from_iter(nodes.keys().copied());
            Error::new(ErrorKind::Unsupported, format!("find NUMA node {node}"))
                .because(format!("the host's nodes are {nodes}"))
        })
    }
}

fn best<'a>(mounts: impl Iterator<Item = &'a Mount>) -> Option<&'a Mount> {
    mounts.min_by_key(|mount| (mount.is_read_only(), mount.root().components().count()))
}

fn names(list: &str) -> Vec<Controller> {
    list.split_ascii_whitespace()
        .filter_map(|name| Controller::from_name(Version::V2, name))
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

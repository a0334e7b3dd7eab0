//! Reading what a [`Host`] is made of from this machine.

use std::collections::BTreeMap;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::mount::{self, Mount};
use crate::{Controller, CpuSet, Error, ErrorKind, Host, HostTexts, Result, Version, membership};

const NODES: &str = "/sys/devices/system/node";
const CPUS: &str = "/sys/devices/system/cpu";

impl Host {
    /// Reads the hierarchies this process sees (`/proc/thread-self/mountinfo`; `cgroup` beside it when it is first asked
    /// for). A mount that another lies over does not count (mountinfo, and statx(2) where that leaves it open); one that is
    /// opened later is looked at again (fstatfs(2)).
    ///
    /// Changes nothing, and needs no privilege.
    ///
    /// # Errors
    /// Where `/proc` is not mounted, or a file of the kernel's cannot be read.
    pub fn discover() -> Result<Self> {
        let proc = Dir::open_system("/proc/thread-self").map_err(|error| {
            error.hinted("mount a proc filesystem at /proc").kind_is(ErrorKind::Unexpected)
        })?;
        let mut mounts = Vec::new();
        for mount in mount::parse_all(&proc.read("mountinfo")?) {
            if mount.shows_itself()? {
                mounts.push(mount);
            }
        }
        let mut texts = HostTexts::default();

        let mount = Self::from_mounts(mounts.clone(), &texts).v2_mount().map(Mount::open);
        let Some(dir) = mount.transpose()? else {
            return Ok(Self::from_mounts(mounts, &texts));
        };
        let controllers = dir.read_text("cgroup.controllers")?;
        texts.controllers = &controllers;
        texts.nested = dir.read_if_there("cgroup.type")?.is_some();
        // Neither matters at the hierarchy's own root, where the list of processes can be long.
        let subtree_control;
        if texts.nested {
            subtree_control = dir.read_text("cgroup.subtree_control")?;
            texts.subtree_control = &subtree_control;
            texts.occupied = !dir.read("cgroup.procs")?.is_empty();
        }
        Ok(Self::from_mounts(mounts, &texts))
    }
}

/// The CPUs of memory node `node` (`/sys/devices/system/node/node<N>/cpulist`).
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) where the host has no such node; the nodes it has are named.
pub fn numa_node_cpus(node: u32) -> Result<CpuSet> {
    Host::from_mounts(Vec::new(), &HostTexts::default()).node_cpus(node).cloned()
}

/// The controllers that v1 hierarchies hold; none where that cannot be read.
pub(crate) fn bound_to_v1() -> Vec<Controller> {
    let text = Dir::open_system("/proc/thread-self").and_then(|proc| proc.read("cgroup"));
    membership::bound_to_v1(&text.unwrap_or_default())
}

/// Each memory node and its CPUs. A kernel without NUMA has one node, with all CPUs.
pub(crate) fn nodes() -> Result<BTreeMap<u32, CpuSet>> {
    let dir = match Dir::open_system(NODES) {
        Ok(dir) => dir,
        Err(error) if error.errno() == Some(Errno::NOENT) => {
            return Ok([(0, Dir::open_system(CPUS)?.read_text("online")?.parse()?)].into());
        }
        Err(error) => return Err(error),
    };
    let mut nodes = BTreeMap::new();
    for name in dir.subdirs()? {
        let number = name.to_str().and_then(|name| name.strip_prefix("node"));
        if let Some(number) = number.and_then(|digits| digits.parse().ok()) {
            nodes.insert(number, dir.read_text(name.join("cpulist"))?.parse()?);
        }
    }
    Ok(nodes)
}

/// Why `controller` cannot be used, as an error.
pub(crate) fn unusable(host: &Host, version: Version, controller: Controller) -> Option<Error> {
    let why = host.usable(version, controller).err()?;
    let name = controller.name(version);
    Some(
        Error::new(ErrorKind::Unsupported, format!("use control groups {version}"))
            .because(format!("needs the controller {name} of {version}: {why}")),
    )
}

//! Reading this machine's [`Host`].

use crate::dir::Dir;
use crate::host::mountinfo;
use crate::{CpuSet, ErrorKind, Host, HostTexts, Result};

/// Largest mountinfo that is read, in bytes: about half a million mounts.
const MOUNTINFO_MAX: usize = 64 << 20;

impl Host {
    /// Reads the hierarchies that this process sees (`/proc/thread-self/mountinfo`, and `cgroup` beside it when first
    /// needed). A mount that is covered by another does not count (mountinfo, and statx(2) if that leaves it open). A mount
    /// that is opened later is checked again (fstatfs(2)).
    ///
    /// Changes nothing, and needs no privilege.
    ///
    /// # Errors
    /// [`Unexpected`](ErrorKind::Unexpected) if `/proc` is not mounted; any other kind if a kernel file cannot be read.
    pub fn discover() -> Result<Self> {
        let proc = Dir::open_system("/proc/thread-self").map_err(|error| {
            error.hinted("Mount a proc filesystem at /proc.").of_kind(ErrorKind::Unexpected)
        })?;
        let mut mounts = Vec::new();
        for mount in mountinfo::parse(&proc.read_at_most("mountinfo", MOUNTINFO_MAX)?) {
            if mount.is_reachable()? {
                mounts.push(mount);
            }
        }
        let mut texts = HostTexts::default();
        let mount = Self::from_mounts(mounts.clone(), &texts).v2_mount().map(|mount| mount.open());
        let Some(dir) = mount.transpose()? else {
            return Ok(Self::from_mounts(mounts, &texts));
        };
        let text =
            |file| -> Result<String> { Ok(String::from_utf8_lossy(&dir.read(file)?).into_owned()) };
        let controllers = text("cgroup.controllers")?;
        texts.controllers = &controllers;
        texts.nested = dir.read_if_exists("cgroup.type")?.is_some();
        // The hierarchy's own root may enable controllers always, and its list of processes can be long.
        let subtree_control;
        if texts.nested {
            subtree_control = text("cgroup.subtree_control")?;
            texts.subtree_control = &subtree_control;
            texts.occupied = dir.has_content("cgroup.procs")? == Some(true);
        }
        Ok(Self::from_mounts(mounts, &texts))
    }
}

/// Returns the CPUs of memory node `node` (`/sys/devices/system/node/node<N>/cpulist`).
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported), with the nodes of the host, if there is no such node.
pub fn numa_node_cpus(node: u32) -> Result<CpuSet> {
    Host::from_mounts(Vec::new(), &HostTexts::default()).node_cpus(node).cloned()
}

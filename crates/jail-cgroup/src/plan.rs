//! A leaf to be created: [`LeafPlan`].

mod group_path;
mod pick;
mod setting;
mod v1;
mod v2;

use std::path::PathBuf;

pub(crate) use group_path::GroupPath;
pub use setting::Setting;
use setting::Write;

use crate::leaf::{HierarchyPath, Owner};
use crate::{
    CgroupVersion, Controller, CpuSet, Error, ErrorKind, Host, LeafId, Limit, Limits, Result,
};

/// Controllers of every v1 leaf, if the host has them: freezing and accounting.
const V1_ALWAYS: [Controller; 4] =
    [Controller::Freezer, Controller::Pids, Controller::Memory, Controller::Cpuacct];
/// Controllers of every v2 leaf, if the parents can enable them: accounting.
const V2_ALWAYS: [Controller; 2] = [Controller::Memory, Controller::Pids];

/// Plan of a leaf: its directories, and the values to write, in order. A plan changes nothing by itself.
///
/// ```
/// use jail_cgroup::{ByteSize, Host, HostTexts, LeafPlan, Limits, CgroupVersion};
///
/// let host = Host::from_texts(&HostTexts {
///     mountinfo: b"30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate",
///     controllers: "cpuset cpu io memory pids",
///     ..HostTexts::default()
/// });
/// let limits = Limits::new().memory_max(ByteSize::mib(512)).cpus(0.5);
/// let plan = LeafPlan::new(&host, CgroupVersion::V2, "machines.slice", "web-1", &limits)?;
/// let writes: Vec<_> = plan.writes().iter().map(|write| write.to_string()).collect();
/// assert_eq!(
///     writes,
///     [
///         "/sys/fs/cgroup/machines.slice/web-1/memory.max = 536870912",
///         "/sys/fs/cgroup/machines.slice/web-1/cpu.max = 50000 100000",
///     ],
/// );
/// # Ok::<(), jail_cgroup::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeafPlan {
    id: LeafId,
    writes: Vec<Setting>,
    /// File and value of each setting for a launcher.
    settings: Vec<(String, String)>,
}

impl LeafPlan {
    /// Plans the leaf `<parent>/<leaf>` with `limits` in `host`'s hierarchy, or hierarchies, of `version`.
    ///
    /// `parent` is relative to the mount; missing groups of it are made. Reads nothing but the [`Host`], which reads
    /// this machine's memory nodes when a limit first names a node.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a limit or a name that is invalid on every host;
    /// [`Unsupported`](ErrorKind::Unsupported), with the limit, if the version or the host lacks it.
    pub fn new(
        host: &Host,
        version: CgroupVersion,
        parent: &str,
        leaf: &str,
        limits: &Limits,
    ) -> Result<Self> {
        let path = GroupPath::new(parent)?.join(leaf)?;
        let writes = planned_writes(host, version, limits)?;
        let mut settings = Vec::new();
        let paths = match version {
            CgroupVersion::V1 => v1_paths(host, &path, &writes, &mut settings),
            CgroupVersion::V2 => {
                vec![v2_path(host, path, &writes, &mut settings)?]
            }
        };
        let setting = |write: Write| {
            let place = paths.iter().find(|place| place.has(write.controller))?;
            let path = place.dir().join(&write.file);
            Some(write.at(path))
        };
        let writes = writes.into_iter().filter_map(setting).collect();
        Ok(Self { id: LeafId { version, paths, owner: None }, writes, settings })
    }

    /// Sets the owner's mark: 1 to 512 bytes that no other user of the hierarchy has, such as a directory's path.
    ///
    /// [`create`](Self::create) writes the mark to each of the leaf's directories (`trusted.jail-cgroup.leaf`,
    /// setxattr(2)) and refuses a leaf that carries another one. [`LeafId::open`] checks it. Without a mark, any caller
    /// that knows the name can open the leaf.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for an empty or longer mark.
    ///
    /// # Privileges
    /// CAP_SYS_ADMIN in the initial user namespace, to write and to read marks.
    pub fn owned_by(mut self, mark: &str) -> Result<Self> {
        self.id.owner = Some(Owner::new(mark)?);
        Ok(self)
    }

    /// Returns the mark of the leaf's owner, if there is one.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.id.owner()
    }

    /// Returns the version of control groups.
    #[must_use]
    pub fn version(&self) -> CgroupVersion {
        self.id.version
    }

    /// Returns the id that finds the leaf again.
    #[must_use]
    pub fn id(&self) -> LeafId {
        self.id.clone()
    }

    /// Returns the leaf's directories: one in v2, one per hierarchy in v1.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.id.paths()
    }

    /// Returns the values that [`create`](Self::create) writes, in order.
    #[must_use]
    pub fn writes(&self) -> &[Setting] {
        &self.writes
    }

    /// Returns the settings for a launcher that joins control groups by `file=value`, such as the official jailer by
    /// `--cgroup`. The launcher then joins the leaf, and sets only values that [`create`](Self::create) has set.
    ///
    /// v1: at least one setting per hierarchy, a neutral value without a limit. Hierarchies without a suitable file
    /// (`blkio`, and `cpuacct` if it is mounted alone) are left to [`Leaf::adopt_rest`](crate::Leaf::adopt_rest).
    ///
    /// v2: values with a `=` (`io.max`) are left out; the list is empty if v2 has no controller at all.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        self.settings.clone()
    }
}

/// Checks whether `version` can do `limits`.
pub(crate) fn check(host: &Host, version: CgroupVersion, limits: &Limits) -> Result<()> {
    planned_writes(host, version, limits).map(drop)
}

/// Returns the values that `version` writes for `limits`, in order.
pub(crate) fn planned_writes(
    host: &Host,
    version: CgroupVersion,
    limits: &Limits,
) -> Result<Vec<Write>> {
    limits.check()?;
    check_hierarchy(host, version)?;
    let placed = resolve_numa_node(host, limits)?;
    let mut writes = match version {
        CgroupVersion::V1 => v1::writes(&placed)?,
        CgroupVersion::V2 => v2::writes(&placed),
    };
    if limits.numa_node.is_some() {
        // Errors name the limit that was set.
        for write in &mut writes {
            match write.limit {
                Limit::CpusetMems => write.limit = Limit::NumaNode,
                Limit::CpusetCpus if limits.cpuset_cpus.is_none() => write.limit = Limit::NumaNode,
                _ => {}
            }
        }
    }
    match writes.iter().find_map(|write| {
        unusable(host, version, write.controller).map(|error| error.of_limit(write.limit))
    }) {
        Some(error) => Err(error),
        None => Ok(writes),
    }
}

fn check_hierarchy(host: &Host, version: CgroupVersion) -> Result<()> {
    // A writable mount makes one of these usable.
    let usable = match version {
        CgroupVersion::V1 => {
            V1_ALWAYS.iter().any(|controller| host.usable(version, *controller).is_ok())
        }
        CgroupVersion::V2 => host.usable(version, Controller::Freezer).is_ok(),
    };
    if usable {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("use control groups {version}"))
        .because(format!("no {version} hierarchy is mounted that can be written to"))
        .hinted("Mount one read-write."))
}

/// Replaces the NUMA node by the node's cpuset.
fn resolve_numa_node(host: &Host, limits: &Limits) -> Result<Limits> {
    let mut limits = limits.clone();
    if let Some(node) = limits.numa_node {
        let cpus = host.node_cpus(node).map_err(|error| error.of_limit(Limit::NumaNode))?;
        if limits.cpuset_cpus.is_none() {
            if cpus.is_empty() {
                return Err(Error::new(ErrorKind::Unsupported, "use the NUMA node")
                    .of_limit(Limit::NumaNode)
                    .because(format!("{node} has no CPUs"))
                    .hinted("Choose CPUs with cpuset_cpus."));
            }
            limits.cpuset_cpus = Some(cpus.clone());
        }
        limits.cpuset_mems = Some(CpuSet::from_iter([node]));
    }
    Ok(limits)
}

fn v1_paths(
    host: &Host,
    path: &GroupPath,
    writes: &[Write],
    settings: &mut Vec<(String, String)>,
) -> Vec<HierarchyPath> {
    let mut paths: Vec<HierarchyPath> = Vec::new();
    let wanted = writes.iter().map(|write| write.controller).chain(V1_ALWAYS);
    for controller in wanted {
        if host.usable(CgroupVersion::V1, controller).is_err()
            || paths.iter().any(|place| place.has(controller))
        {
            continue;
        }
        let Some(mount) = host.v1_mount(controller) else { continue };
        let mut place = HierarchyPath::new(mount, mount.controllers(), path);
        let before = settings.len();
        settings.extend(
            writes
                .iter()
                .filter(|write| place.has(write.controller) && v1::can_be_setting(write, writes))
                .map(|write| (write.file.clone(), write.value.clone())),
        );
        if settings.len() == before {
            let neutral = mount.controllers().iter().find_map(|other| v1::neutral(*other));
            settings.extend(neutral.map(|(file, value)| (file.to_owned(), value.to_owned())));
        }
        place.joined_by_settings = settings.len() > before;
        paths.push(place);
    }
    paths
}

fn v2_path(
    host: &Host,
    path: GroupPath,
    writes: &[Write],
    settings: &mut Vec<(String, String)>,
) -> Result<HierarchyPath> {
    let mount = host.v2_mount().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "use control groups v2")
            .because("no v2 hierarchy is mounted")
    })?;
    let mut controllers: Vec<_> = writes.iter().map(|write| write.controller).collect();
    controllers.extend(V2_ALWAYS.into_iter().filter(|controller| host.has_in_v2(*controller)));
    controllers.sort_unstable();
    controllers.dedup();
    settings.extend(
        writes
            .iter()
            .filter(|write| !write.value.contains('='))
            .map(|write| (write.file.clone(), write.value.clone())),
    );
    if settings.is_empty() {
        let neutral = [(Controller::Pids, "pids.max"), (Controller::Memory, "memory.max")];
        let neutral = neutral.into_iter().find(|(controller, _)| controllers.contains(controller));
        settings.extend(neutral.map(|(_, file)| (file.to_owned(), "max".to_owned())));
    }
    Ok(HierarchyPath::new(mount, &controllers, &path))
}

/// Returns the error for a controller that cannot be used.
fn unusable(host: &Host, version: CgroupVersion, controller: Controller) -> Option<Error> {
    let why = host.usable(version, controller).err()?;
    let name = controller.name(version);
    Some(
        Error::new(ErrorKind::Unsupported, format!("use control groups {version}"))
            .because(format!("needs the controller {name} of {version}: {why}")),
    )
}

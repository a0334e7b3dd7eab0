//! What making a leaf will do, before it is done: [`LeafPlan`].

use std::path::PathBuf;

use crate::discover::unusable;
use crate::group_path::GroupPath;
use crate::leaf_id::{LeafId, Place};
use crate::owner::Owner;
use crate::{ByteSize, Controller, CpuSet, Error, ErrorKind, Host, Limit, Limits, Result, Version};
use crate::{v1, v2};

/// What every v1 leaf has where the host has it, limits or not: a way to stop it, and accounts.
const V1_ALWAYS: [Controller; 4] =
    [Controller::Freezer, Controller::Pids, Controller::Memory, Controller::Cpuacct];
/// What every v2 leaf accounts for where its parents let it.
const V2_ALWAYS: [Controller; 2] = [Controller::Memory, Controller::Pids];

/// A leaf to be made: where, with which limits, written in which order. Changes nothing by itself.
///
/// ```
/// use jail_cgroup::{ByteSize, Host, HostTexts, LeafPlan, Limits, Version};
///
/// let host = Host::from_texts(&HostTexts {
///     mountinfo: b"30 24 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate",
///     controllers: "cpuset cpu io memory pids",
///     ..HostTexts::default()
/// });
/// let limits = Limits::new().memory_max(ByteSize::mib(512)).cpus(0.5);
/// let plan = LeafPlan::new(&host, Version::V2, "machines.slice", "web-1", &limits)?;
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
    /// File and value of each setting a launcher is told.
    told: Vec<(String, String)>,
}

/// One value to be written to one file of a leaf.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Setting {
    /// The limit it is for.
    pub limit: Limit,
    /// The controller whose file it is.
    pub controller: Controller,
    /// The file's name, such as `memory.max`.
    pub file: String,
    /// What is written to it.
    pub value: String,
    /// Where the file will be.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    pub path: PathBuf,
}

/// `<path> = <value>`
impl std::fmt::Display for Setting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} = {}", self.path.display(), self.value)
    }
}

/// A [`Setting`] that has no place yet.
#[derive(Debug, Clone)]
pub(crate) struct Write {
    pub(crate) limit: Limit,
    pub(crate) controller: Controller,
    pub(crate) file: String,
    pub(crate) value: String,
}

impl LeafPlan {
    /// Plans the leaf `<parent>/<leaf>` with `limits` in `host`'s hierarchy, or hierarchies, of `version`.
    ///
    /// `parent` is relative to the mount; its groups are made where they are missing. Pure: all that is known of the host
    /// is in [`Host`], which reads this machine's memory nodes when a limit first names one.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a limit or a name that is wrong anywhere;
    /// [`Unsupported`](ErrorKind::Unsupported), naming the limit, for one that this version or this host cannot do.
    pub fn new(
        host: &Host,
        version: Version,
        parent: &str,
        leaf: &str,
        limits: &Limits,
    ) -> Result<Self> {
        let path = GroupPath::new(parent)?.join(leaf)?;
        let writes = checked_writes(host, version, limits)?;
        let mut told = Vec::new();
        let places = match version {
            Version::V1 => v1_places(host, &path, &writes, &mut told),
            Version::V2 => {
                let place = v2_place(host, path, &writes, &mut told)?;
                vec![place]
            }
        };
        let setting = |write: Write| {
            let place = places.iter().find(|place| place.has(write.controller))?;
            let path = place.dir().join(&write.file);
            let Write { limit, controller, file, value } = write;
            Some(Setting { limit, controller, file, value, path })
        };
        let writes = writes.into_iter().filter_map(setting).collect();
        Ok(Self { id: LeafId { version, places, owner: None }, writes, told })
    }

    /// Marks the leaf as `mark`'s: 1 to 512 bytes that no other user of the hierarchy has, such as the directory of a jail.
    ///
    /// [`create`](Self::create) writes the mark to each of the leaf's directories (`trusted.jail-cgroup.leaf`, setxattr(2))
    /// and refuses a leaf that carries another one. [`LeafId::open`] checks it. Without a mark, any caller that knows the
    /// name can open the leaf.
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

    /// Returns the mark of the leaf's owner, if it has one.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.id.owner()
    }

    /// Which version of control groups the leaf is of.
    #[must_use]
    pub fn version(&self) -> Version {
        self.id.version
    }

    /// What is needed to find the leaf again.
    #[must_use]
    pub fn id(&self) -> LeafId {
        self.id.clone()
    }

    /// The leaf's directories: one in v2, one per hierarchy in v1.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.id.paths()
    }

    /// What [`create`](Self::create) writes, in order.
    #[must_use]
    pub fn writes(&self) -> &[Setting] {
        &self.writes
    }

    /// What a launcher that joins control groups by `file=value` settings is to be told, such as the official jailer by
    /// `--cgroup`: it then joins the leaf, and sets nothing but what [`create`](Self::create) has set.
    ///
    /// v1: at least one setting per hierarchy, a neutral one where nothing is limited. Where no file can carry one
    /// (`cpuacct` mounted alone, `blkio`), the hierarchy is left to [`Leaf::adopt_rest`](crate::Leaf::adopt_rest).
    ///
    /// v2: a value with a `=` in it (`io.max`) is left out; the list is empty where v2 has no controller at all.
    #[must_use]
    pub fn settings(&self) -> Vec<(String, String)> {
        self.told.clone()
    }
}

/// Whether a leaf with `limits` can be had of `version`.
pub(crate) fn check(host: &Host, version: Version, limits: &Limits) -> Result<()> {
    checked_writes(host, version, limits).map(drop)
}

fn checked_writes(host: &Host, version: Version, limits: &Limits) -> Result<Vec<Write>> {
    limits.check()?;
    check_hierarchy(host, version)?;
    let placed = on_node(host, limits)?;
    let mut writes = match version {
        Version::V1 => v1::writes(&placed)?,
        Version::V2 => v2::writes(&placed),
    };
    if limits.numa_node.is_some() {
        // By the name it was asked for.
        for write in &mut writes {
            match write.limit {
                Limit::CpusetMems => write.limit = Limit::NumaNode,
                Limit::CpusetCpus if limits.cpuset_cpus.is_none() => write.limit = Limit::NumaNode,
                _ => {}
            }
        }
    }
    match writes.iter().find_map(|write| {
        unusable(host, version, write.controller).map(|error| error.limit_is(write.limit))
    }) {
        Some(error) => Err(error),
        None => Ok(writes),
    }
}

fn check_hierarchy(host: &Host, version: Version) -> Result<()> {
    // Of any controller: these two are usable wherever the version is.
    let usable = match version {
        Version::V1 => V1_ALWAYS.iter().any(|controller| host.usable(version, *controller).is_ok()),
        Version::V2 => host.usable(version, Controller::Freezer).is_ok(),
    };
    if usable {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Unsupported, format!("use control groups {version}"))
        .because(format!("no {version} hierarchy is mounted that can be written to"))
        .hinted("mount one read-write"))
}

/// The NUMA node as the cpuset it stands for.
fn on_node(host: &Host, limits: &Limits) -> Result<Limits> {
    let mut limits = limits.clone();
    if let Some(node) = limits.numa_node {
        let cpus = host.node_cpus(node).map_err(|error| error.limit_is(Limit::NumaNode))?;
        if limits.cpuset_cpus.is_none() {
            if cpus.is_empty() {
                return Err(Error::new(ErrorKind::Unsupported, "use the NUMA node")
                    .limit_is(Limit::NumaNode)
                    .because(format!("{node} has no CPUs"))
                    .hinted("say which CPUs with cpuset_cpus"));
            }
            limits.cpuset_cpus = Some(cpus.clone());
        }
        limits.cpuset_mems = Some(CpuSet::from_iter([node]));
    }
    Ok(limits)
}

fn v1_places(
    host: &Host,
    path: &GroupPath,
    writes: &[Write],
    told: &mut Vec<(String, String)>,
) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::new();
    let wanted = writes.iter().map(|write| write.controller).chain(V1_ALWAYS);
    for controller in wanted {
        if host.usable(Version::V1, controller).is_err()
            || places.iter().any(|place| place.has(controller))
        {
            continue;
        }
        let Some(mount) = host.v1_mount(controller) else { continue };
        let mut place = Place::new(mount, mount.controllers(), path);
        let before = told.len();
        told.extend(
            writes
                .iter()
                .filter(|write| place.has(write.controller) && v1::can_be_told(write, writes))
                .map(|write| (write.file.clone(), write.value.clone())),
        );
        if told.len() == before {
            let neutral = mount.controllers().iter().find_map(|other| v1::neutral(*other));
            told.extend(neutral.map(|(file, value)| (file.to_owned(), value.to_owned())));
        }
        place.told = told.len() > before;
        places.push(place);
    }
    places
}

fn v2_place(
    host: &Host,
    path: GroupPath,
    writes: &[Write],
    told: &mut Vec<(String, String)>,
) -> Result<Place> {
    let mount = host.v2_mount().ok_or_else(|| {
        Error::new(ErrorKind::Unsupported, "use control groups v2").because("it is not mounted")
    })?;
    let mut controllers: Vec<_> = writes.iter().map(|write| write.controller).collect();
    controllers.extend(V2_ALWAYS.into_iter().filter(|controller| host.has_in_v2(*controller)));
    controllers.sort_unstable();
    controllers.dedup();
    told.extend(
        writes
            .iter()
            .filter(|write| !write.value.contains('='))
            .map(|write| (write.file.clone(), write.value.clone())),
    );
    if told.is_empty() {
        let neutral = [(Controller::Pids, "pids.max"), (Controller::Memory, "memory.max")];
        let neutral = neutral.into_iter().find(|(controller, _)| controllers.contains(controller));
        told.extend(neutral.map(|(_, file)| (file.to_owned(), "max".to_owned())));
    }
    Ok(Place::new(mount, &controllers, &path))
}

/// The kernel's name for pages of that size (`hugetlb_cgroup.c`).
pub(crate) fn page_name(page: ByteSize) -> String {
    let bytes = page.as_bytes();
    match () {
        () if bytes >= 1 << 30 => format!("{}GB", bytes >> 30),
        () if bytes >= 1 << 20 => format!("{}MB", bytes >> 20),
        () => format!("{}KB", bytes >> 10),
    }
}

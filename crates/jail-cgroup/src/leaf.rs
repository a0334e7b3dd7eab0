//! A leaf that exists: [`Leaf`], who is in it, and who joins.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::leaf_id::{LeafId, Place};
use crate::plan::Setting;
use crate::{Controller, Error, ErrorKind, Result, Version, keyed};

/// The processes of a group, one pid a line.
pub(crate) const PROCS: &str = "cgroup.procs";
/// v1: its threads, one id a line.
const TASKS: &str = "tasks";

/// A group of processes' own, held open: one directory in v2, one per hierarchy in v1.
///
/// Made by [`LeafPlan::create`](crate::LeafPlan::create), found again by [`LeafId::open`].
///
/// # Caveats
/// Dropping it leaves the leaf, and who is in it, as they are; [`remove`](Self::remove) is explicit.
#[derive(Debug)]
pub struct Leaf {
    pub(crate) id: LeafId,
    /// Those that exist: a leaf that was half removed has fewer than its id.
    pub(crate) groups: Vec<Group>,
    /// What was asked for, of a leaf that this process made.
    pub(crate) writes: Vec<Setting>,
}

/// How a new process gets into a leaf before it is another program: see [`Leaf::birthplace`].
#[derive(Debug)]
#[non_exhaustive]
pub struct Birthplace<'a> {
    /// v2: the leaf's directory, for `clone3(2)` with `CLONE_INTO_CGROUP` (Linux 5.7).
    pub group: Option<BorrowedFd<'a>>,
    /// v1: the leaf's `tasks` in each hierarchy. A process with one thread writes `0` to each, which moves that thread and
    /// takes no lock (`cgroup_procs_write_start()`, Linux 5.6).
    pub tasks: Vec<OwnedFd>,
    /// v1: whether that rebinds the memory of who does it to the leaf's nodes (`cpuset_attach()`): whoever shares it with
    /// another process, as after `vfork(2)`, must not.
    pub moves_memory: bool,
}

/// A leaf's directory in one hierarchy.
#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) place: Place,
    pub(crate) mount: Dir,
    /// Below the mount.
    pub(crate) path: PathBuf,
    pub(crate) dir: Dir,
}

impl Leaf {
    /// What is needed to find the leaf again.
    #[must_use]
    pub fn id(&self) -> &LeafId {
        &self.id
    }

    /// Which version of control groups it is of.
    #[must_use]
    pub fn version(&self) -> Version {
        self.id.version
    }

    /// Returns the mark of the leaf's owner, if it has one.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.id.owner()
    }

    /// Its directories: one in v2, one per hierarchy in v1.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.groups.iter().map(|group| group.dir.path().to_owned())
    }

    /// The pids of the processes in it or in groups below it, in any of its hierarchies, ascending (`cgroup.procs`).
    ///
    /// Processes of a pid namespace that the caller cannot see into have no pid, and are not listed;
    /// [`is_empty`](Self::is_empty) counts them on v2.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where the leaf was removed.
    pub fn members(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for group in &self.groups {
            pids.extend(members(&group.dir)?);
        }
        pids.sort_unstable();
        pids.dedup();
        Ok(pids)
    }

    /// Whether no process is in it or below it: v2 `cgroup.events`, v1 `cgroup.procs`.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where the leaf was removed.
    pub fn is_empty(&self) -> Result<bool> {
        for group in &self.groups {
            if !is_empty(&group.dir, self.version())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether the process `pid`, with every thread, is in it or below it in *every* hierarchy: by the leaf's own lists
    /// (`cgroup.procs`; v1: `tasks` too), which mean the same in every control group namespace. False where there is no such
    /// process, and of a dead one.
    ///
    /// A pid is only as good as the caller's hold on it: keep its pidfd, or be its parent.
    ///
    /// # Errors
    /// [`Partial`](ErrorKind::Partial) where it is in some of the hierarchies only, or some of its threads are not; both
    /// are named.
    pub fn contains(&self, pid: u32) -> Result<bool> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for place in &self.id.places {
            let held = match self.groups.iter().find(|group| group.place == *place) {
                Some(group) => group.has(pid, self.version()),
                None => Ok(false),
            };
            match held {
                Ok(true) => inside.push(place.dir()),
                Ok(false) => outside.push(place.dir()),
                Err(error) if is_gone(&error) => outside.push(place.dir()),
                Err(error) => return Err(error),
            }
        }
        if inside.is_empty() || outside.is_empty() {
            return Ok(outside.is_empty());
        }
        let names = |dirs: &[PathBuf]| {
            dirs.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
        };
        let (inside, outside) = (names(&inside), names(&outside));
        Err(Error::new(ErrorKind::Partial, format!("find process {pid} in the leaf"))
            .because(format!("it is in {inside}; it, or a thread of it, is not in {outside}"))
            .hinted("after a launcher that joins by settings, call `Leaf::adopt_rest`"))
    }

    /// What it takes to have a process born in the leaf.
    ///
    /// Nobody waits then. Whoever is moved in later ([`adopt`](Self::adopt), or by itself through `cgroup.procs`) waits for a
    /// grace period of the kernel's in each hierarchy, and every process of the host that starts or ends with it
    /// (`cgroup_threadgroup_rwsem`): often ten milliseconds.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where the leaf was removed, [`Privilege`](ErrorKind::Privilege) where it is not the
    /// caller's to write to.
    ///
    /// # Privileges
    /// Write access to the leaf: root, or its delegate.
    pub fn birthplace(&self) -> Result<Birthplace<'_>> {
        let mut place = Birthplace { group: None, tasks: Vec::new(), moves_memory: false };
        for group in &self.groups {
            match self.version() {
                Version::V1 => {
                    place.tasks.push(group.dir.open_to_write(TASKS)?);
                    place.moves_memory |= group.place.has(Controller::Cpuset);
                }
                Version::V2 => place.group = Some(group.dir.as_fd()),
            }
        }
        Ok(place)
    }

    /// Moves the process `pid`, with all its threads, into the leaf, in every hierarchy (`cgroup.procs`).
    ///
    /// What it has already allocated stays charged where it was. Its children to come are in the leaf too, those it has
    /// are not.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where there is no such process, [`Privilege`](ErrorKind::Privilege) where the
    /// caller may not move it from where it is.
    pub fn adopt(&self, pid: u32) -> Result<()> {
        self.join(pid, |_| true)
    }

    /// The same in those hierarchies only that [`LeafPlan::settings`](crate::LeafPlan::settings) cannot make a launcher
    /// join: v1's `blkio`, and `cpuacct` where it is mounted alone. Does nothing on v2.
    ///
    /// # Errors
    /// As [`adopt`](Self::adopt).
    pub fn adopt_rest(&self, pid: u32) -> Result<()> {
        self.join(pid, |place| !place.told)
    }

    fn join(&self, pid: u32, wanted: impl Fn(&Place) -> bool) -> Result<()> {
        for group in self.groups.iter().filter(|group| wanted(&group.place)) {
            group.dir.write(PROCS, &pid.to_string()).map_err(|error| match error.errno() {
                Some(Errno::SRCH) => error.because(format!("there is no process {pid}")),
                _ => error.because(format!("process {pid} cannot be moved here")),
            })?;
        }
        Ok(())
    }
}

impl Group {
    /// Whether the process, with every thread, is in it or below it.
    fn has(&self, pid: u32, version: Version) -> Result<bool> {
        if !members(&self.dir)?.contains(&pid) {
            return Ok(false);
        }
        // v2 keeps the threads of a process together; on v1 each may be elsewhere.
        if version == Version::V2 {
            return Ok(true);
        }
        let tasks = Dir::open_system(format!("/proc/{pid}/task"))?;
        // In this order: threads made since are where their makers are.
        let names = tasks.subdirs()?;
        let inside = ids_below(&self.dir, TASKS)?;
        for name in names {
            let id = name.to_str().and_then(|name| name.parse().ok());
            let held = id.is_some_and(|id| inside.contains(&id));
            // One that has ended since was not looked for in time.
            if !held && tasks.open_if_there(&name)?.is_some() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// The pids in a group and below it.
pub(crate) fn members(group: &Dir) -> Result<Vec<u32>> {
    ids_below(group, PROCS)
}

fn ids_below(group: &Dir, file: &str) -> Result<Vec<u32>> {
    let mut pids = Vec::new();
    for path in below(group)? {
        match group.open(&path).and_then(|dir| ids(&dir, file)) {
            Ok(ids) => pids.extend(ids),
            // Removed since, or threaded: then its processes are listed further up.
            Err(error) if is_gone(&error) && !path.as_os_str().is_empty() => {}
            Err(error) if error.errno() == Some(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(pids)
}

/// Whether no process is in a group or below it.
pub(crate) fn is_empty(group: &Dir, version: Version) -> Result<bool> {
    match version {
        Version::V1 => Ok(members(group)?.is_empty()),
        Version::V2 => {
            let events = group.read_text("cgroup.events")?;
            Ok(keyed::number(&events, "populated") == Some(0))
        }
    }
}

/// The pids in a group itself.
pub(crate) fn procs(dir: &Dir) -> Result<Vec<u32>> {
    ids(dir, PROCS)
}

/// A process without a pid here shows as 0.
fn ids(dir: &Dir, file: &str) -> Result<Vec<u32>> {
    let text = dir.read_text(file)?;
    Ok(text.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid != 0).collect())
}

/// The paths of a group and of all below it, parents first; the first is empty. One directory is open at a time.
pub(crate) fn below(dir: &Dir) -> Result<Vec<PathBuf>> {
    let mut paths = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        match dir.open(&path).and_then(|dir| dir.subdirs()) {
            Ok(names) => paths.extend(names.into_iter().map(|name| path.join(name))),
            Err(error) if is_gone(&error) && next > 1 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(paths)
}

pub(crate) fn is_gone(error: &Error) -> bool {
    matches!(error.errno(), Some(Errno::NOENT | Errno::NODEV | Errno::SRCH))
}

//! The processes of a leaf.

use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::leaf::keyed;
use crate::leaf::{Group, Leaf};
use crate::sys::Errno;
use crate::{CgroupVersion, Error, ErrorKind, Result};

/// File that lists the processes of a group, one pid a line.
pub(crate) const PROCS: &str = "cgroup.procs";
/// v1: file that lists the threads of a group, one id a line.
pub(crate) const TASKS: &str = "tasks";
/// The id that the kernel lists for a process of a pid namespace that the reader cannot see into.
pub(crate) const HIDDEN: u32 = 0;
/// Most groups below a leaf.
const GROUPS_MAX: usize = 1 << 16;
/// Most pids in an error.
const SHOWN_MAX: usize = 8;

/// Some members and the number of all, for errors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    pids: Vec<u32>,
    count: u64,
}

impl Sample {
    /// Reads the members of a group and of the groups below.
    pub(crate) fn read(group: &Dir) -> Result<Self> {
        let mut sample = Self::default();
        sample.add(group)?;
        Ok(sample)
    }

    fn add(&mut self, group: &Dir) -> Result<()> {
        for_each(group, PROCS, |pid| {
            self.count += 1;
            if pid != HIDDEN && self.pids.len() < SHOWN_MAX && !self.pids.contains(&pid) {
                self.pids.push(pid);
            }
            ControlFlow::<()>::Continue(())
        })
        .map(drop)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

/// `processes [7, 8]`, with the number of all if some are left out.
impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = u64::try_from(self.pids.len()).unwrap_or_default();
        match self.count > shown && shown >= 8 {
            true => write!(f, "{} processes, {:?} and others,", self.count, self.pids),
            false => write!(f, "processes {:?}", self.pids),
        }
    }
}

impl Leaf {
    /// Returns the pids of the processes in the leaf or in groups below it, in any of the hierarchies, ascending
    /// (`cgroup.procs`). A leaf that was removed has none.
    ///
    /// A process of a pid namespace that the caller cannot see into has no pid here, and is left out;
    /// [`is_empty`](Self::is_empty) counts such processes on v2. v1 hides them.
    ///
    /// # Errors
    /// [`Privilege`](ErrorKind::Privilege) if the caller may not read the lists.
    pub fn members(&self) -> Result<Vec<u32>> {
        let mut pids = Vec::new();
        for group in &self.groups {
            for_each(&group.dir, PROCS, |pid| {
                if pid != HIDDEN {
                    pids.push(pid);
                }
                ControlFlow::<()>::Continue(())
            })?;
            // At most as many as there can be pids, in each hierarchy.
            pids.sort_unstable();
            pids.dedup();
        }
        Ok(pids)
    }

    /// Returns true if the leaf and the groups below it have no process: v2 `cgroup.events`, v1 `cgroup.procs`. A leaf
    /// that was removed is empty.
    ///
    /// # Errors
    /// [`Privilege`](ErrorKind::Privilege) if the caller may not read the files.
    pub fn is_empty(&self) -> Result<bool> {
        for group in &self.groups {
            if !is_empty(&group.dir, self.version())? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns true if the process `pid`, with every thread, is in the leaf or below it in *every* hierarchy
    /// (`cgroup.procs`; v1: `tasks` too). False for a process that does not exist or has exited.
    ///
    /// A pid identifies a process only as long as the caller holds its pidfd or is its parent.
    ///
    /// # Errors
    /// [`Partial`](ErrorKind::Partial) if the process, or a thread of it, is in some of the hierarchies only; both are
    /// named.
    pub fn contains(&self, pid: u32) -> Result<bool> {
        let (mut inside, mut outside) = (Vec::new(), Vec::new());
        for path in &self.id.paths {
            let held = match self.groups.iter().find(|group| group.path == *path) {
                Some(group) => has(group, pid, self.version()),
                None => Ok(false),
            };
            match held {
                Ok(true) => inside.push(path.dir()),
                Ok(false) => outside.push(path.dir()),
                Err(error) if error.is_gone() => outside.push(path.dir()),
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
            .because(format!(
                "the process is in {inside}, and all or part of it is not in {outside}"
            ))
            .hinted("After a launcher that joins by settings, call `Leaf::adopt_rest`."))
    }

    /// Reads some members of the whole leaf.
    pub(crate) fn sample(&self) -> Result<Sample> {
        let mut sample = Sample::default();
        for group in &self.groups {
            sample.add(&group.dir)?;
            // The other hierarchies list the same processes.
            if !sample.is_empty() {
                break;
            }
        }
        Ok(sample)
    }
}

/// Returns true if the process, with every thread, is in the group or below.
fn has(group: &Group, pid: u32, version: CgroupVersion) -> Result<bool> {
    if !lists(&group.dir, PROCS, pid)? {
        return Ok(false);
    }
    // v2 keeps the threads of a process together; v1 may have them in different groups.
    if version == CgroupVersion::V2 {
        return Ok(true);
    }
    let tasks = Dir::open_system(format!("/proc/{pid}/task"))?;
    // Threads first: a thread that starts after this look starts in the group of its maker.
    let mut threads: Vec<u32> = Vec::new();
    tasks.for_each_subdir(|name| threads.extend(keyed::parse::<u32>(name.as_encoded_bytes())))?;
    let mut inside = Vec::new();
    for_each(&group.dir, TASKS, |id| {
        inside.push(id);
        ControlFlow::<()>::Continue(())
    })?;
    inside.sort_unstable();
    for thread in threads {
        // A thread that has exited since was missed for that reason.
        if inside.binary_search(&thread).is_err()
            && tasks.open_if_exists(thread.to_string())?.is_some()
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Calls `each` with each id in the file of a group and of the groups below, until `each` breaks; [`HIDDEN`] stands for a
/// process without a pid in this namespace. One file is open during `each`; nothing is kept per process. A removed group has
/// none.
pub(crate) fn for_each<B>(
    group: &Dir,
    file: &str,
    mut each: impl FnMut(u32) -> ControlFlow<B>,
) -> Result<Option<B>> {
    for path in below(group)? {
        let listed = group.lines(path.join(file), |line| match keyed::parse(line) {
            None => ControlFlow::Continue(()),
            Some(id) => each(id),
        });
        match listed {
            Ok(None) => {}
            Ok(found) => return Ok(found),
            // Removed, or a threaded group: the process is listed further up.
            Err(error) if error.is_gone() || error.errno() == Some(Errno::OPNOTSUPP) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

/// Returns true if the file of a group, or of a group below, lists `id`.
pub(crate) fn lists(group: &Dir, file: &str, id: u32) -> Result<bool> {
    let found = for_each(group, file, |listed| match listed == id {
        true => ControlFlow::Break(()),
        false => ControlFlow::Continue(()),
    })?;
    Ok(found.is_some())
}

/// Returns true if the group and the groups below have no process. A removed group is empty.
pub(crate) fn is_empty(group: &Dir, version: CgroupVersion) -> Result<bool> {
    match version {
        CgroupVersion::V1 => Ok(for_each(group, PROCS, |_| ControlFlow::Break(()))?.is_none()),
        CgroupVersion::V2 => match group.read("cgroup.events") {
            Ok(events) => Ok(keyed::number(&events, "populated") == Some(0)),
            Err(error) if error.is_gone() => Ok(true),
            Err(error) => Err(error),
        },
    }
}

/// Returns the paths of a group and of all groups below, parents first; the first is empty. One directory is open at a
/// time. A removed group has none.
pub(crate) fn below(dir: &Dir) -> Result<Vec<PathBuf>> {
    let mut paths = vec![PathBuf::new()];
    let mut next = 0;
    while let Some(path) = paths.get(next).cloned() {
        next += 1;
        match dir.open(&path).and_then(|dir| dir.subdirs()) {
            Ok(names) => paths.extend(names.into_iter().map(|name| path.join(name))),
            Err(error) if error.is_gone() => {}
            Err(error) => return Err(error),
        }
        if paths.len() > GROUPS_MAX {
            return Err(Error::new(ErrorKind::Unexpected, "list the groups below")
                .at(dir.path())
                .because(format!("there are more than {GROUPS_MAX}")));
        }
    }
    Ok(paths)
}

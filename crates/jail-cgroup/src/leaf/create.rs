//! Creating a leaf.

use std::ffi::OsString;

use crate::sys::{Access, Errno};

use crate::dir::Dir;
use crate::leaf::members::{self, PROCS, Sample};
use crate::leaf::owner::{self, Claim, Owner};
use crate::leaf::remove::remove_tree;
use crate::leaf::{Group, HierarchyPath, Leaf, keyed};
use crate::plan::{LeafPlan, Setting};
use crate::{CgroupVersion, Controller, CpuSet, Error, ErrorKind, Limit, Result};

/// Most attempts to walk down while other processes remove parents.
const ATTEMPTS: usize = 256;

impl LeafPlan {
    /// Creates the leaf (mkdirat(2)): missing parents, the controllers on the path (`cgroup.subtree_control`; v1: an empty
    /// cpuset takes the parent's), the leaf with its owner's mark, and the limits in the order of
    /// [`writes`](Self::writes).
    ///
    /// An empty leaf of the same name and owner, from a launcher that crashed, is replaced: the counters start at zero. If
    /// two processes create the same leaf at once, at most one of them has it in the end. On failure nothing of the leaf is
    /// left; a controller that was enabled in a parent stays enabled.
    ///
    /// # Errors
    /// - [`Busy`](ErrorKind::Busy) if a leaf of the name has processes or another owner, if another process creates the same
    ///   leaf, or if a v2 parent that must enable controllers has processes.
    /// - [`Refused`](ErrorKind::Refused) or [`Unsupported`](ErrorKind::Unsupported), with the limit, if the kernel does not
    ///   accept or keep a value.
    /// - [`Privilege`](ErrorKind::Privilege).
    ///
    /// # Privileges
    /// Write access to the parent: root, or the user to whom it is delegated.
    pub fn create(&self) -> Result<Leaf> {
        let id = self.id();
        let mounts = id
            .paths
            .iter()
            .map(|path| Dir::open_mount(path.mount(), id.version))
            .collect::<Result<Vec<_>>>()?;
        for (path, mount) in id.paths.iter().zip(&mounts) {
            if let Some(old) = mount.open_if_exists(path.path().as_path())? {
                self.refuse_others(&old)?;
                refuse_living(id.version, &old)?;
            }
        }
        let mut made = Made(Vec::new());
        let mut groups = Vec::new();
        for (path, mount) in id.paths.iter().zip(mounts) {
            let dir = self.make_group(path, &mount, &mut made)?;
            self.refuse_threaded(&dir)?;
            let (below, full_path) = (path.path().as_path().to_owned(), path.full_path());
            groups.push(Group { path: path.clone(), mount, below, full_path, dir });
        }
        let leaf = Leaf { id, groups, writes: self.writes().to_vec() };
        for setting in &leaf.writes {
            leaf.write(setting)?;
        }
        leaf.refuse_removed().map_err(contested)?;
        made.keep();
        Ok(leaf)
    }

    fn make_group(&self, path: &HierarchyPath, mount: &Dir, made: &mut Made) -> Result<Dir> {
        let mut attempts = 0;
        loop {
            match self.walk_down(path, mount, made) {
                // Another process removed the last leaf of a parent, and the parent, during the walk.
                Err(error) if error.is_gone() && attempts < ATTEMPTS => attempts += 1,
                done => return done,
            }
        }
    }

    fn walk_down(&self, path: &HierarchyPath, mount: &Dir, made: &mut Made) -> Result<Dir> {
        let mut dir = mount.clone();
        let mut parents = Vec::new();
        let mut names = path.path().names().peekable();
        while let Some(name) = names.next() {
            self.enable_controllers(path, &dir)?;
            let is_leaf = names.peek().is_none();
            let mut new = dir.make(name)?;
            let mut child = dir.open(name).map_err(not_a_group)?;
            if is_leaf && !new {
                self.refuse_others(&child)?;
                refuse_living(self.version(), &child)?;
                remove_tree(&dir, name.as_ref(), &mut Vec::new())?;
                new = dir.make(name)?;
                child = dir.open(name)?;
            }
            if is_leaf {
                claim(&child, self.id().owner.as_ref())?;
            } else {
                refuse_leaf(&child)?;
                parents.push(child.clone());
                if new {
                    // Without the mark, the parent stays for the operator to remove.
                    let _ = owner::mark_parent(&child);
                }
            }
            if new {
                let (parent, dir) = (dir.clone(), child.clone());
                made.0.push(New { parent, name: name.to_owned(), dir });
            }
            if is_leaf {
                // Again: another process may have made a leaf of a parent meanwhile.
                parents.iter().try_for_each(refuse_leaf)?;
            }
            if self.version() == CgroupVersion::V1 {
                inherit_cpuset(&dir, &child)?;
            }
            dir = child;
        }
        Ok(dir)
    }

    /// Refuses an existing leaf of another owner, with or without processes.
    fn refuse_others(&self, old: &Dir) -> Result<()> {
        let claim = match Claim::read(old) {
            Ok(claim) => claim,
            Err(error) if error.is_gone() => return Ok(()),
            Err(error) => return Err(error),
        };
        let id = self.id();
        match &claim {
            Claim::Owned(_) if !id.owner.as_ref().is_some_and(|owner| claim.is_of(owner)) => {
                Err(Error::new(ErrorKind::Busy, "create the leaf")
                    .at(old.path())
                    .because(format!("it exists and has {claim}"))
                    .hinted("Choose another name or parent."))
            }
            // A creation that was cut short leaves a group without a claim, and without groups below.
            Claim::None if old.has_subdirs()? => {
                Err(Error::new(ErrorKind::Busy, "create the leaf")
                    .at(old.path())
                    .because("it exists, was not made as a leaf, and has groups below it")
                    .hinted("Choose another name or parent, or remove the group."))
            }
            _ => Ok(()),
        }
    }

    /// Refuses a threaded leaf. A v2 parent that has processes of its own can enable threaded controllers (pids, cpu); no
    /// process can join its children then, and the kernel reports that only on joining.
    fn refuse_threaded(&self, leaf: &Dir) -> Result<()> {
        let Some(kind) = leaf.read_if_exists("cgroup.type")? else { return Ok(()) };
        if kind.trim_ascii() == b"domain" {
            return Ok(());
        }
        let kind = String::from_utf8_lossy(kind.trim_ascii()).into_owned();
        let error = Error::new(ErrorKind::Busy, "create the leaf")
            .at(leaf.path())
            .because(format!("the group is {kind:?}, since its parent has processes of its own"))
            .hinted("Move its processes into a group below it, or choose another parent.");
        Err(match self.writes().first() {
            Some(write) => error.of_limit(write.limit),
            None => error,
        })
    }

    /// Enables the leaf's controllers for the children of `dir`. Accounting-only controllers are skipped if they are
    /// unavailable.
    fn enable_controllers(&self, path: &HierarchyPath, dir: &Dir) -> Result<()> {
        let mut controllers =
            path.controllers().iter().filter(|controller| !controller.is_core_in_v2()).peekable();
        if self.version() == CgroupVersion::V1 || controllers.peek().is_none() {
            return Ok(());
        }
        const FILE: &str = "cgroup.subtree_control";
        let enabled = dir.read(FILE)?;
        let mut occupied = None;
        for controller in controllers {
            let name = controller.name(CgroupVersion::V2);
            if keyed::words(&enabled).any(|on| on == name.as_bytes()) {
                continue;
            }
            let limited = self.writes().iter().find(|write| write.controller == *controller);
            // Enabling pids or cpu here would make the group threaded, for good.
            if *occupied.get_or_insert(is_occupied(dir)?) {
                match limited {
                    Some(write) => return Err(occupied_by(dir, *controller, write)),
                    None => continue,
                }
            }
            match (dir.write(FILE, format!("+{name}")), limited) {
                (Err(error), Some(write)) => return Err(not_passed_on(error, *controller, write)),
                (Err(error), None) if error.is_gone() && dir.read(FILE).is_err() => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Refuses a parent that is a leaf: what is in the new leaf would count against the limits of the other leaf, and go with the
/// other leaf's processes.
fn refuse_leaf(parent: &Dir) -> Result<()> {
    match Claim::read(parent) {
        Ok(Claim::None) => Ok(()),
        Ok(claim) => Err(Error::new(ErrorKind::Busy, "create the leaf")
            .at(parent.path())
            .because(format!("the parent is itself a leaf and has {claim}"))
            .hinted("Choose another parent.")),
        Err(error) => Err(error),
    }
}

/// Returns true if a group has processes and may therefore enable no controllers. The hierarchy's root may always.
fn is_occupied(dir: &Dir) -> Result<bool> {
    if dir.read_if_exists("cgroup.type")?.is_none() {
        return Ok(false);
    }
    Ok(dir.has_content(PROCS)? == Some(true))
}

fn occupied_by(dir: &Dir, controller: Controller, write: &Setting) -> Error {
    let error = Error::new(ErrorKind::Busy, "enable controllers").at(dir.path());
    occupied(error.of_limit(write.limit), controller)
}

fn occupied(error: Error, controller: Controller) -> Error {
    error
        .because(format!(
            "needs the controller {controller}, and a group with processes of its own cannot enable controllers"
        ))
        .hinted("Move its processes into a group below it, or choose another parent.")
}

fn not_passed_on(error: Error, controller: Controller, write: &Setting) -> Error {
    let error = error.of_limit(write.limit);
    match error.errno() {
        Some(Errno::BUSY) => occupied(error, controller),
        // The controller is missing, not the file: the file was read.
        Some(Errno::NOENT) => error
            .of_kind(ErrorKind::Unsupported)
            .because(format!(
                "needs the controller {controller}, which is not delegated to this group"
            ))
            .hinted("Enable the controller further up, or choose another parent."),
        Some(Errno::OPNOTSUPP) => error
            .of_kind(ErrorKind::Unsupported)
            .because(format!("needs the controller {controller}, and this group is threaded"))
            .hinted("Choose another parent."),
        _ => error.because(format!("needs the controller {controller}")),
    }
}

/// Claims the leaf. Of two processes that made or found the same directory, one succeeds. Without an owner, both do if
/// attributes cannot be written.
fn claim(leaf: &Dir, owner: Option<&Owner>) -> Result<()> {
    match Claim::make(leaf, owner) {
        Err(error) if error.errno() == Some(Errno::EXIST) => Err(contested(error)),
        done => done,
    }
}

fn contested(error: Error) -> Error {
    error
        .of_kind(ErrorKind::Busy)
        .because("another process creates the same leaf at this moment")
        .hinted("Let one launcher at a time use a leaf's name.")
}

/// Explains a name that a file of the kernel has.
fn not_a_group(error: Error) -> Error {
    if error.errno() != Some(Errno::NOTDIR) {
        return error;
    }
    error
        .of_kind(ErrorKind::InvalidInput)
        .because("a file has that name")
        .hinted("Choose another name.")
}

fn refuse_living(version: CgroupVersion, old: &Dir) -> Result<()> {
    if members::is_empty(old, version)? {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Busy, "create the leaf")
        .at(old.path())
        .because(format!("it exists, and {} are in it", Sample::read(old)?))
        .hinted("Choose another name, or kill the processes first."))
}

/// v1: fills the empty cpuset of a new group; no process can join such a group.
fn inherit_cpuset(parent: &Dir, child: &Dir) -> Result<()> {
    for file in ["cpuset.mems", "cpuset.cpus"] {
        let Some(text) = child.read_if_exists(file)? else { return Ok(()) };
        if text.trim_ascii().is_empty() {
            child.write(file, parent.read(file)?.trim_ascii())?;
        }
    }
    Ok(())
}

impl Leaf {
    pub(super) fn write(&self, setting: &Setting) -> Result<()> {
        let Some(group) = self.groups.iter().find(|group| group.path.has(setting.controller))
        else {
            return Err(Error::new(ErrorKind::Unexpected, "write")
                .at(&setting.path)
                .of_limit(setting.limit)
                .because(format!("no hierarchy has the controller {}", setting.controller)));
        };
        group.dir.write(&setting.file, &setting.value).map_err(|error| refused(error, setting))?;
        if self.version() == CgroupVersion::V2 {
            check_cpuset(&group.dir, setting)?;
        }
        Ok(())
    }
}

fn refused(error: Error, setting: &Setting) -> Error {
    let Setting { limit, controller, file, value, .. } = setting;
    let error = error.of_limit(*limit);
    match error.errno() {
        Some(Errno::NOENT) => error
            .of_kind(ErrorKind::Unsupported)
            .because(format!("needs {file}, which this kernel does not have")),
        Some(Errno::ACCESS) if *controller == Controller::Cpuset => error
            .of_kind(ErrorKind::Refused)
            .because(format!("of {value} is more than the parent has")),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => error,
        Some(Errno::NODEV) if *limit == Limit::Io => error
            .of_kind(ErrorKind::Refused)
            .because(format!("of {value:?} was refused: there is no such device"))
            .hinted("Name a whole disk, not a partition."),
        _ => error
            .of_kind(ErrorKind::Refused)
            .because(format!("of {value:?} was refused by the kernel")),
    }
}

/// Reads a v2 cpuset back. The kernel accepts any set, and uses the part that the parent has, or all of the parent's.
fn check_cpuset(dir: &Dir, setting: &Setting) -> Result<()> {
    if setting.controller != Controller::Cpuset {
        return Ok(());
    }
    let asked: CpuSet = setting.value.parse()?;
    let effective = dir.read(format!("{}.effective", setting.file))?;
    let effective: CpuSet = String::from_utf8_lossy(&effective).parse()?;
    if asked == effective {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "write")
        .at(&setting.path)
        .of_limit(setting.limit)
        .because(format!("of {asked} was accepted, but {effective} is in effect"))
        .hinted("Ask for a part of the parent's set."))
}

/// Groups that were made, removed on drop unless kept.
struct Made(Vec<New>);

/// Group that was made.
struct New {
    parent: Dir,
    name: OsString,
    dir: Dir,
}

impl Made {
    fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Made {
    fn drop(&mut self) {
        for New { parent, name, dir } in self.0.iter().rev() {
            // The name of a removed group may belong to another by now.
            if !dir.open_file(PROCS, Access::Read).is_err_and(|error| error.is_gone()) {
                // A parent with another leaf stays.
                let _ = parent.remove(name);
            }
        }
    }
}

/// Tests on fake trees; each names a twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{ByteSize, Limits};

    const V2: [&str; 4] =
        ["memory.max max", "cpu.max max 100000", "pids.max max", "memory.oom.group 0"];

    fn plan(fakes: &[&Fake], version: CgroupVersion, limits: &Limits) -> LeafPlan {
        LeafPlan::new(&host(fakes), version, "a/b", "leaf", limits).unwrap()
    }

    /// Twin: `limits::limits_are_read_back`.
    #[test]
    fn v2_enables_controllers_and_limits() {
        let fake = Fake::new(CgroupVersion::V2, "memory,cpu,pids", &V2);
        let limits = Limits::new().memory_max(ByteSize::mib(1)).cpus(0.25);
        let leaf = plan(&[&fake], CgroupVersion::V2, &limits).create().unwrap();
        assert_eq!(fake.read("a/b/leaf/memory.max"), "1048576");
        assert_eq!(fake.read("a/b/leaf/cpu.max"), "25000 100000");
        assert_eq!(fake.read("a/b/leaf/pids.max"), "max");
        for parent in [".", "a", "a/b"] {
            // The fake keeps the last of the writes.
            assert_eq!(fake.read(&format!("{parent}/cgroup.subtree_control")), "+pids");
        }
        assert_eq!(fake.read("a/b/leaf/cgroup.subtree_control"), "");
        let effective = leaf.effective().unwrap();
        assert_eq!(effective[0].value, "1048576");
        assert!(!effective[0].is_rounded());
        assert_eq!((effective[2].limit, effective[2].asked.as_deref()), (Limit::OomGroup, None));
    }

    /// Twin: `lifecycle::a_leaf_lives_and_ends`.
    #[test]
    fn v1_has_a_leaf_per_hierarchy() {
        let memory = Fake::new(CgroupVersion::V1, "memory", &["memory.limit_in_bytes -1"]);
        let freezer = Fake::new(CgroupVersion::V1, "freezer", &["freezer.state THAWED"]);
        let limits = Limits::new().memory_max(ByteSize::mib(1));
        let plan = plan(&[&memory, &freezer], CgroupVersion::V1, &limits);
        let leaf = plan.create().unwrap();
        assert_eq!(leaf.paths().count(), 2);
        assert_eq!(memory.read("a/b/leaf/memory.limit_in_bytes"), "1048576");
        assert!(freezer.has("a/b/leaf"));
    }

    /// Twin: `placement::processes_run_on_their_cpus`.
    #[test]
    fn v1_cpusets_inherit() {
        let cpuset =
            Fake::new(CgroupVersion::V1, "cpuset,freezer", &["cpuset.cpus ", "cpuset.mems "]);
        cpuset.write("cpuset.cpus", "0-1\n");
        cpuset.write("cpuset.mems", "0\n");
        let limits = Limits::new().cpuset_cpus(CpuSet::from_iter([1]));
        let _leaf = plan(&[&cpuset], CgroupVersion::V1, &limits).create().unwrap();
        assert_eq!(cpuset.read("a/cpuset.cpus"), "0-1");
        assert_eq!(cpuset.read("a/b/leaf/cpuset.cpus"), "1");
        assert_eq!(cpuset.read("a/b/leaf/cpuset.mems"), "0");
    }

    /// Twin: `limits::huge_pages_are_limited`.
    #[test]
    fn a_missing_file_is_named() {
        let fake = Fake::new(CgroupVersion::V2, "memory,cpu,pids", &V2);
        let limits = Limits::new().pids_max(1).memory_swap_max(ByteSize::bytes(0));
        let error = plan(&[&fake], CgroupVersion::V2, &limits).create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.limit(), Some(Limit::MemorySwapMax));
        assert!(error.to_string().contains("memory_swap_max needs memory.swap.max"), "{error}");
        assert!(!fake.has("a"));
    }

    /// Twin: `lifecycle::refuses_a_populated_leaf`.
    #[test]
    fn refuses_a_populated_leaf_untouched() {
        let memory = Fake::new(CgroupVersion::V1, "memory", &["memory.limit_in_bytes -1"]);
        let pids = Fake::new(CgroupVersion::V1, "pids", &["pids.max max"]);
        let plan = plan(&[&memory, &pids], CgroupVersion::V1, &Limits::new());
        drop(plan.create().unwrap());
        crate::fake::empty(&pids.path("a/b/leaf"));
        pids.write("a/b/leaf/cgroup.procs", "41\n42\n");
        memory.write("a/b/leaf/memory.limit_in_bytes", "untouched");
        let error = plan.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("[41, 42]"), "{error}");
        assert_eq!(memory.read("a/b/leaf/memory.limit_in_bytes"), "untouched");
    }

    /// Twin: `lifecycle::empty_leaves_are_replaced`.
    #[test]
    fn empty_leaves_are_replaced() {
        let fake = Fake::new(CgroupVersion::V2, "memory,cpu,pids", &V2);
        let plan = plan(&[&fake], CgroupVersion::V2, &Limits::new());
        drop(plan.create().unwrap());
        fake.write("a/b/leaf/memory.max", "7");
        drop(plan.create().unwrap());
        assert_eq!(fake.read("a/b/leaf/memory.max"), "max");
    }

    /// Twin: `placement::missing_cpus_are_refused`.
    #[test]
    fn refuses_a_cpuset_that_differs() {
        let files = ["cpuset.cpus ", "cpuset.cpus.effective 0-1"];
        let fake = Fake::new(CgroupVersion::V2, "cpuset", &files);
        let limits = Limits::new().cpuset_cpus(CpuSet::from_iter([5]));
        let error = plan(&[&fake], CgroupVersion::V2, &limits).create().unwrap_err();
        assert_eq!(error.limit(), Some(Limit::CpusetCpus));
        assert!(error.to_string().contains("of 5 was accepted, but 0-1"), "{error}");
        assert!(!fake.has("a"));
    }

    /// Twin: `discovery::covered_mounts_do_not_count`.
    #[test]
    fn refuses_a_mount_of_another_kind() {
        let dir = tempfile::tempdir().unwrap();
        let mountinfo = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw", dir.path().display());
        let host = crate::Host::from_texts(&crate::HostTexts {
            mountinfo: mountinfo.as_bytes(),
            ..Default::default()
        });
        let plan = LeafPlan::new(&host, CgroupVersion::V2, "a", "leaf", &Limits::new()).unwrap();
        let error = plan.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
        assert_eq!(error.path(), Some(dir.path()));
        assert!(Dir::open_system(dir.path()).unwrap().subdirs().unwrap().is_empty());
    }
}

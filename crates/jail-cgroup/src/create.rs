//! Making a leaf.

use std::ffi::OsString;
use std::path::Path;

use rustix::io::Errno;

use crate::dir::Dir;
use crate::leaf::{self, Group, Leaf};
use crate::leaf_id::Place;
use crate::owner::{Claim, Owner};
use crate::plan::{LeafPlan, Setting};
use crate::{Controller, CpuSet, Error, ErrorKind, Limit, Result, Version};

/// What marks a parent that this crate has made: it goes with its last leaf. Others stay.
pub(crate) const MADE: &str = "trusted.jail-cgroup";
/// How often the way down is begun again because another process removed a parent under it.
const AGAIN: usize = 256;

impl LeafPlan {
    /// Makes the leaf (mkdirat(2)): its parents where they are missing, the controllers down the path
    /// (`cgroup.subtree_control`; v1: an empty cpuset takes its parent's), the leaf, and its limits, in the order of
    /// [`writes`](Self::writes).
    ///
    /// An empty leaf of that name, as a crashed launcher leaves it, is made anew, so that its counters start at nothing. Of
    /// two processes that make the same leaf at once, at most one has it in the end.
    /// On failure nothing of the leaf is left; a controller that was enabled in a parent stays enabled.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) where processes live in a leaf of that name, or in a v2 parent that is to pass
    /// controllers on, or where another process makes the same leaf; [`Refused`](ErrorKind::Refused) or [`Unsupported`](ErrorKind::Unsupported), naming the limit,
    /// where the kernel does not take or keep a value; [`Privilege`](ErrorKind::Privilege).
    ///
    /// # Privileges
    /// Write access to the parent: root, or its delegate.
    pub fn create(&self) -> Result<Leaf> {
        let id = self.id();
        let mounts = id
            .places
            .iter()
            .map(|place| Dir::open_mount(place.mount(), id.version))
            .collect::<Result<Vec<_>>>()?;
        for (place, mount) in id.places.iter().zip(&mounts) {
            if let Some(old) = mount.open_if_there(place.path().as_path())? {
                self.refuse_others(&old)?;
                refuse_living(id.version, &old)?;
            }
        }
        let mut made = Made(Vec::new());
        let mut groups = Vec::new();
        for (place, mount) in id.places.iter().zip(mounts) {
            let dir = self.make_group(place, &mount, &mut made)?;
            self.refuse_threaded(&dir)?;
            let path = place.path().as_path().to_owned();
            groups.push(Group { place: place.clone(), mount, path, dir });
        }
        let leaf = Leaf { id, groups, writes: self.writes().to_vec() };
        for setting in &leaf.writes {
            leaf.write(setting)?;
        }
        leaf.refuse_if_gone().map_err(contested)?;
        made.keep();
        Ok(leaf)
    }

    fn make_group(&self, place: &Place, mount: &Dir, made: &mut Made) -> Result<Dir> {
        let mut again = 0;
        loop {
            match self.walk_down(place, mount, made) {
                // The last leaf of a parent was removed, and the parent with it, while we were in it.
                Err(error) if leaf::is_gone(&error) && again < AGAIN => again += 1,
                done => return done,
            }
        }
    }

    fn walk_down(&self, place: &Place, mount: &Dir, made: &mut Made) -> Result<Dir> {
        let mut dir = mount.clone();
        let mut names = place.path().names().peekable();
        while let Some(name) = names.next() {
            self.pass_on(place, &dir)?;
            let is_leaf = names.peek().is_none();
            let mut new = dir.make(name)?;
            let mut child = dir.open(name).map_err(not_a_group)?;
            if is_leaf && !new {
                self.refuse_others(&child)?;
                refuse_living(self.version(), &child)?;
                crate::remove::remove_tree(&dir, name.as_ref(), &mut Vec::new())?;
                new = dir.make(name)?;
                child = dir.open(name)?;
            }
            if is_leaf {
                claim(&child, self.id().owner.as_ref())?;
            } else if new {
                // Where marks cannot be made, the parent stays for its operator to remove.
                let _ = child.mark(MADE, b"1");
            }
            if new {
                let (parent, dir) = (dir.clone(), child.clone());
                made.0.push(New { parent, name: name.to_owned(), dir });
            }
            if self.version() == Version::V1 {
                inherit_cpuset(&dir, &child)?;
            }
            dir = child;
        }
        Ok(dir)
    }

    /// Refuses an existing leaf of another owner, whether it has processes or not.
    fn refuse_others(&self, old: &Dir) -> Result<()> {
        let claim = match Claim::read(old) {
            Ok(claim) => claim,
            Err(error) if leaf::is_gone(&error) => return Ok(()),
            Err(error) => return Err(error),
        };
        let id = self.id();
        match &claim {
            Claim::Owned(_) if !id.owner.as_ref().is_some_and(|owner| claim.is_of(owner)) => {
                Err(Error::new(ErrorKind::Busy, "make the leaf")
                    .path(old.path())
                    .because(format!("it exists and has {claim}"))
                    .hinted("Choose another name or parent."))
            }
            _ => Ok(()),
        }
    }

    /// A v2 parent that has processes of its own passes threaded controllers on (pids, cpu), and its children can then
    /// have no process: nothing says so before one joins.
    fn refuse_threaded(&self, leaf: &Dir) -> Result<()> {
        let Some(kind) = leaf.read_if_there("cgroup.type")? else { return Ok(()) };
        if kind.trim() == "domain" {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Busy, "make the leaf")
            .path(leaf.path())
            .because(format!("it is {:?}, since its parent has processes of its own", kind.trim()))
            .hinted("move its processes into a group below it, or choose another parent");
        Err(match self.writes().first() {
            Some(write) => error.limit_is(write.limit),
            None => error,
        })
    }

    /// Enables the leaf's controllers for the children of `dir`; those that only account are left out where they cannot be.
    fn pass_on(&self, place: &Place, dir: &Dir) -> Result<()> {
        let mut controllers =
            place.controllers().iter().filter(|controller| !controller.is_core_in_v2()).peekable();
        if self.version() == Version::V1 || controllers.peek().is_none() {
            return Ok(());
        }
        const FILE: &str = "cgroup.subtree_control";
        let enabled = dir.read_text(FILE)?;
        let mut occupied = None;
        for controller in controllers {
            let name = controller.name(Version::V2);
            if enabled.split_ascii_whitespace().any(|on| on == name) {
                continue;
            }
            let limited = self.writes().iter().find(|write| write.controller == *controller);
            // Such a group could pass pids and cpu on, and would become a threaded one by that, for good.
            if *occupied.get_or_insert(is_occupied(dir)?) {
                match limited {
                    Some(write) => return Err(occupied_by(dir, *controller, write)),
                    None => continue,
                }
            }
            match (dir.write(FILE, &format!("+{name}")), limited) {
                (Err(error), Some(write)) => return Err(not_passed_on(error, *controller, write)),
                (Err(error), None) if leaf::is_gone(&error) && dir.read(FILE).is_err() => {
                    return Err(error);
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// Whether the no-internal-process rule holds for a group, and it has processes: the hierarchy's root is free of it.
fn is_occupied(dir: &Dir) -> Result<bool> {
    if dir.read_if_there("cgroup.type")?.is_none() {
        return Ok(false);
    }
    Ok(dir.read_if_there(leaf::PROCS)?.is_some_and(|procs| !procs.is_empty()))
}

fn occupied_by(dir: &Dir, controller: Controller, write: &Setting) -> Error {
    let error = Error::new(ErrorKind::Busy, "pass controllers on").path(dir.path());
    occupied(error.limit_is(write.limit), controller)
}

fn occupied(error: Error, controller: Controller) -> Error {
    error
        .because(format!(
            "needs the controller {controller}, and a group with processes of its own passes none on"
        ))
        .hinted("move its processes into a group below it, or choose another parent")
}

fn not_passed_on(error: Error, controller: Controller, write: &Setting) -> Error {
    let error = error.limit_is(write.limit);
    match error.errno() {
        Some(Errno::BUSY) => occupied(error, controller),
        // Of the controller, not of the file: that one was read.
        Some(Errno::NOENT) => error
            .kind_is(ErrorKind::Unsupported)
            .because(format!(
                "needs the controller {controller}, which is not delegated to this group"
            ))
            .hinted("enable it further up, or choose another parent"),
        Some(Errno::OPNOTSUPP) => error
            .kind_is(ErrorKind::Unsupported)
            .because(format!("needs the controller {controller}, and this group is threaded"))
            .hinted("choose another parent"),
        _ => error.because(format!("needs the controller {controller}")),
    }
}

/// Of two processes that made the same directory, or found it made, one goes on. Without an owner, both do if marks cannot
/// be written.
fn claim(leaf: &Dir, owner: Option<&Owner>) -> Result<()> {
    match Claim::make(leaf, owner) {
        Err(error) if error.errno() == Some(Errno::EXIST) => Err(contested(error)),
        done => done,
    }
}

fn contested(error: Error) -> Error {
    error
        .kind_is(ErrorKind::Busy)
        .because("another process makes the same leaf at this moment")
        .hinted("let one launcher at a time own a leaf's name")
}

/// The kernel's own files lie beside the groups.
fn not_a_group(error: Error) -> Error {
    if error.errno() != Some(Errno::NOTDIR) {
        return error;
    }
    error.kind_is(ErrorKind::InvalidInput).because("a file has that name").hinted("choose another")
}

fn refuse_living(version: Version, old: &Dir) -> Result<()> {
    match leaf::is_empty(old, version) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Error::new(ErrorKind::Busy, "make the leaf")
            .path(old.path())
            .because(format!("it exists, and processes {:?} live in it", leaf::members(old)?))
            .hinted("choose another name, or kill them first")),
        // Removed meanwhile.
        Err(error) if leaf::is_gone(&error) => Ok(()),
        Err(error) => Err(error),
    }
}

/// v1: no process can join a group whose cpuset is empty, and a new one's is.
fn inherit_cpuset(parent: &Dir, child: &Dir) -> Result<()> {
    for file in ["cpuset.mems", "cpuset.cpus"] {
        let Some(text) = child.read_if_there(file)? else { return Ok(()) };
        if text.trim().is_empty() {
            child.write(file, parent.read_text(file)?.trim())?;
        }
    }
    Ok(())
}

impl Leaf {
    fn write(&self, setting: &Setting) -> Result<()> {
        let Some(group) = self.groups.iter().find(|group| group.place.has(setting.controller))
        else {
            return Err(Error::new(ErrorKind::Unexpected, "write")
                .path(&setting.path)
                .limit_is(setting.limit)
                .because(format!("no hierarchy has the controller {}", setting.controller)));
        };
        group.dir.write(&setting.file, &setting.value).map_err(|error| refused(error, setting))?;
        if self.version() == Version::V2 {
            check_cpuset(&group.dir, setting)?;
        }
        Ok(())
    }
}

fn refused(error: Error, setting: &Setting) -> Error {
    let Setting { limit, controller, file, value, .. } = setting;
    let error = error.limit_is(*limit);
    match error.errno() {
        Some(Errno::NOENT) => error
            .kind_is(ErrorKind::Unsupported)
            .because(format!("needs {file}, which this kernel does not have")),
        Some(Errno::ACCESS) if *controller == Controller::Cpuset => error
            .kind_is(ErrorKind::Refused)
            .because(format!("of {value} is more than the parent has")),
        Some(Errno::ACCESS | Errno::PERM | Errno::ROFS) => error,
        Some(Errno::NODEV) if *limit == Limit::Io => error
            .kind_is(ErrorKind::Refused)
            .because(format!("of {value:?} was not taken: there is no such device"))
            .hinted("name a whole disk, not a partition"),
        _ => error
            .kind_is(ErrorKind::Refused)
            .because(format!("of {value:?} was not taken by the kernel")),
    }
}

/// v2 takes any cpuset, and then uses what the parent has of it, or all of the parent's where that is nothing.
fn check_cpuset(dir: &Dir, setting: &Setting) -> Result<()> {
    if setting.controller != Controller::Cpuset {
        return Ok(());
    }
    let asked: CpuSet = setting.value.parse()?;
    let effective: CpuSet = dir.read_text(format!("{}.effective", setting.file))?.parse()?;
    if asked == effective {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Refused, "write")
        .path(&setting.path)
        .limit_is(setting.limit)
        .because(format!("of {asked} was taken, but {effective} is what it has come to"))
        .hinted("ask for what the parent has"))
}

/// What was made, to be unmade unless it is kept.
struct Made(Vec<New>);

/// A group that was made.
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
            // Gone already, the name may be another's by now.
            if !dir.read(leaf::PROCS).is_err_and(|error| leaf::is_gone(&error)) {
                // Someone else's leaf may be in a parent by now: then it stays.
                let _ = parent.remove(Path::new(name));
            }
        }
    }
}

/// On fake trees; each has its twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{ByteSize, Limits};

    const V2: [&str; 4] =
        ["memory.max max", "cpu.max max 100000", "pids.max max", "memory.oom.group 0"];

    fn plan(fakes: &[&Fake], version: Version, limits: &Limits) -> LeafPlan {
        LeafPlan::new(&host(fakes), version, "a/b", "leaf", limits).unwrap()
    }

    /// Twin: `limits::what_was_asked_for_is_what_is_there`.
    #[test]
    fn v2_passes_controllers_down_and_writes_limits() {
        let fake = Fake::new(Version::V2, "memory,cpu,pids", &V2);
        let limits = Limits::new().memory_max(ByteSize::mib(1)).cpus(0.25);
        let leaf = plan(&[&fake], Version::V2, &limits).create().unwrap();
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

    /// Twin: `lifecycle::a_leaf_from_its_making_to_its_end`.
    #[test]
    fn v1_makes_a_leaf_in_each_hierarchy() {
        let memory = Fake::new(Version::V1, "memory", &["memory.limit_in_bytes -1"]);
        let freezer = Fake::new(Version::V1, "freezer", &["freezer.state THAWED"]);
        let limits = Limits::new().memory_max(ByteSize::mib(1));
        let plan = plan(&[&memory, &freezer], Version::V1, &limits);
        let leaf = plan.create().unwrap();
        assert_eq!(leaf.paths().count(), 2);
        assert_eq!(memory.read("a/b/leaf/memory.limit_in_bytes"), "1048576");
        assert!(freezer.has("a/b/leaf"));
    }

    /// Twin: `placement::a_process_runs_on_the_cpus_it_was_given`.
    #[test]
    fn v1_cpusets_take_what_their_parents_have() {
        let cpuset = Fake::new(Version::V1, "cpuset,freezer", &["cpuset.cpus ", "cpuset.mems "]);
        cpuset.write("cpuset.cpus", "0-1\n");
        cpuset.write("cpuset.mems", "0\n");
        let limits = Limits::new().cpuset_cpus(CpuSet::from_iter([1]));
        let _leaf = plan(&[&cpuset], Version::V1, &limits).create().unwrap();
        assert_eq!(cpuset.read("a/cpuset.cpus"), "0-1");
        assert_eq!(cpuset.read("a/b/leaf/cpuset.cpus"), "1");
        assert_eq!(cpuset.read("a/b/leaf/cpuset.mems"), "0");
    }

    /// Twin: `limits::huge_pages_are_limited`.
    #[test]
    fn what_the_kernel_lacks_is_named_and_nothing_is_left() {
        let fake = Fake::new(Version::V2, "memory,cpu,pids", &V2);
        let limits = Limits::new().pids_max(1).memory_swap_max(ByteSize::bytes(0));
        let error = plan(&[&fake], Version::V2, &limits).create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert_eq!(error.limit(), Some(Limit::MemorySwapMax));
        assert!(error.to_string().contains("memory_swap_max needs memory.swap.max"), "{error}");
        assert!(!fake.has("a"));
    }

    /// Twin: `lifecycle::a_leaf_with_the_living_in_it_is_not_taken_over`.
    #[test]
    fn a_leaf_with_the_living_in_it_is_refused_before_anything_is_touched() {
        let memory = Fake::new(Version::V1, "memory", &["memory.limit_in_bytes -1"]);
        let pids = Fake::new(Version::V1, "pids", &["pids.max max"]);
        let plan = plan(&[&memory, &pids], Version::V1, &Limits::new());
        drop(plan.create().unwrap());
        crate::fake::empty(&Dir::open_system(pids.path("a/b/leaf")).unwrap());
        pids.write("a/b/leaf/cgroup.procs", "41\n42\n");
        memory.write("a/b/leaf/memory.limit_in_bytes", "untouched");
        let error = plan.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("[41, 42]"), "{error}");
        assert_eq!(memory.read("a/b/leaf/memory.limit_in_bytes"), "untouched");
    }

    /// Twin: `lifecycle::an_empty_leaf_is_made_anew`.
    #[test]
    fn an_empty_leaf_is_made_anew() {
        let fake = Fake::new(Version::V2, "memory,cpu,pids", &V2);
        let plan = plan(&[&fake], Version::V2, &Limits::new());
        drop(plan.create().unwrap());
        fake.write("a/b/leaf/memory.max", "7");
        drop(plan.create().unwrap());
        assert_eq!(fake.read("a/b/leaf/memory.max"), "max");
    }

    /// Twin: `placement::cpus_that_are_not_there_are_an_error`.
    #[test]
    fn a_cpuset_that_comes_to_something_else_is_an_error() {
        let files = ["cpuset.cpus ", "cpuset.cpus.effective 0-1"];
        let fake = Fake::new(Version::V2, "cpuset", &files);
        let limits = Limits::new().cpuset_cpus(CpuSet::from_iter([5]));
        let error = plan(&[&fake], Version::V2, &limits).create().unwrap_err();
        assert_eq!(error.limit(), Some(Limit::CpusetCpus));
        assert!(error.to_string().contains("of 5 was taken, but 0-1"), "{error}");
        assert!(!fake.has("a"));
    }

    /// Twin: `discovery::a_covered_mount_is_not_taken_for_one`.
    #[test]
    fn a_mount_that_is_none_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let mountinfo = format!("1 1 0:1 / {} rw - cgroup2 cgroup2 rw", dir.path().display());
        let host = crate::Host::from_texts(&crate::HostTexts {
            mountinfo: mountinfo.as_bytes(),
            ..Default::default()
        });
        let plan = LeafPlan::new(&host, Version::V2, "a", "leaf", &Limits::new()).unwrap();
        let error = plan.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
        assert_eq!(error.at(), Some(dir.path()));
        assert!(Dir::open_system(dir.path()).unwrap().subdirs().unwrap().is_empty());
    }
}

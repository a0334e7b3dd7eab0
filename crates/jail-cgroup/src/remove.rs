//! Removing a leaf, and the parents made for it.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use crate::create::MADE;
use crate::dir::Dir;
use crate::leaf::{self, Leaf};
use crate::{Error, ErrorKind, Result, wait};

/// How long the kernel gets to let go of what has died.
const PATIENCE: Duration = Duration::from_secs(5);

/// What [`Leaf::remove`] has removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RemoveReport {
    /// Directories, in the order of their removal: groups below the leaf, the leaf, parents that this crate had made and
    /// that were empty now; hierarchy by hierarchy.
    pub removed: Vec<PathBuf>,
}

impl Leaf {
    /// Removes the leaf with all groups below it, bottom-up, in every hierarchy (rmdir(2)), and then the parents that
    /// [`LeafPlan::create`](crate::LeafPlan::create) had made, where nothing else is in them. Parents of others stay.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) where processes live in it: [`kill`](Self::kill) and
    /// [`wait_empty`](Self::wait_empty) come first. It can then be opened again by its [`LeafId`](crate::LeafId).
    pub fn remove(self) -> Result<RemoveReport> {
        let members = self.members().or_else(|error| match error.kind() {
            ErrorKind::NotFound => Ok(Vec::new()),
            _ => Err(error),
        })?;
        if !members.is_empty() {
            return Err(living(&self.id.paths().next().unwrap_or_default(), &members));
        }
        self.claim_rest("remove the leaf")?;
        let mut report = RemoveReport::default();
        for group in &self.groups {
            let Some((parent, name)) = group.path.parent().zip(group.path.file_name()) else {
                continue;
            };
            if let Some(dir) = group.mount.open_if_there(parent)? {
                remove_tree(&dir, Path::new(name), &mut report.removed)?;
            }
            remove_parents(&group.mount, parent, &mut report.removed)?;
        }
        Ok(report)
    }
}

fn living(path: &Path, pids: &[u32]) -> Error {
    Error::new(ErrorKind::Busy, "remove the leaf")
        .path(path)
        .because(format!("processes {pids:?} live in it"))
        .hinted("kill them and wait until it is empty")
}

/// Removes `name` in `parent` with all below it; not being there is fine.
pub(crate) fn remove_tree(parent: &Dir, name: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    let Some(top) = parent.open_if_there(name)? else { return Ok(()) };
    let paths = leaf::below(&top)?;
    let deadline = Instant::now() + PATIENCE;
    for path in paths.iter().rev() {
        let group = name.join(path);
        let (dir, last) = match (group.parent(), group.file_name()) {
            (Some(dir), Some(last)) if !dir.as_os_str().is_empty() => (parent.open(dir), last),
            _ => (parent.open(""), group.as_os_str()),
        };
        let dir = match dir {
            Ok(dir) => dir,
            Err(error) if leaf::is_gone(&error) => continue,
            Err(error) => return Err(error),
        };
        if remove_one(&dir, Path::new(last), deadline)? {
            removed.push(dir.path().join(last));
        }
    }
    Ok(())
}

/// Removes one group; whether it was there. The dead keep a group busy for a moment; the living do for good.
fn remove_one(parent: &Dir, name: &Path, deadline: Instant) -> Result<bool> {
    loop {
        let error = match parent.remove(name) {
            Ok(()) => return Ok(true),
            Err(error) if leaf::is_gone(&error) => return Ok(false),
            Err(error) => error,
        };
        if error.errno() != Some(Errno::BUSY) {
            return Err(error);
        }
        let members = match parent.open(name).and_then(|dir| leaf::procs(&dir)) {
            Ok(members) => members,
            Err(gone) if leaf::is_gone(&gone) => return Ok(false),
            // Threaded: its processes, were there any, would be listed further up.
            Err(threaded) if threaded.errno() == Some(Errno::OPNOTSUPP) => Vec::new(),
            Err(error) => return Err(error),
        };
        if !members.is_empty() {
            return Err(living(&parent.path().join(name), &members));
        }
        if Instant::now() >= deadline {
            return Err(error.because("it has no processes, and is busy all the same"));
        }
        wait::pause();
    }
}

/// Goes up as long as parents are ours and empty.
fn remove_parents(mount: &Dir, parent: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    let named = parent.ancestors().take_while(|path| !path.as_os_str().is_empty());
    for path in named {
        let ours = match mount.open_if_there(path)? {
            // A mark that cannot be read is none.
            Some(dir) => dir.attribute(MADE, 8).is_ok_and(|mark| mark.is_some()),
            None => false,
        };
        if !ours {
            return Ok(());
        }
        match mount.remove(path) {
            Ok(()) => removed.push(mount.path().join(path)),
            // In use, or removed by another.
            Err(error)
                if matches!(error.errno(), Some(Errno::BUSY | Errno::NOTEMPTY))
                    || leaf::is_gone(&error) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// On fake trees; each has its twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{LeafPlan, Limits, Version};

    /// Twin: `lifecycle::members_below_the_leaf_are_members` and `lifecycle::the_operators_parent_stays`.
    #[test]
    fn all_below_goes_and_the_operators_parent_stays() {
        let fake = Fake::new(Version::V2, "pids", &["pids.max max"]);
        let operators = Dir::open_system(fake.path("")).unwrap();
        operators.make("a").unwrap();
        let plan =
            LeafPlan::new(&host(&[&fake]), Version::V2, "a", "leaf", &Limits::new()).unwrap();
        let leaf = plan.create().unwrap();
        leaf.groups[0].dir.make("x").unwrap();
        leaf.groups[0].dir.open("x").unwrap().make("y").unwrap();
        let found = plan.id().open(&host(&[&fake])).unwrap().unwrap();
        let report = found.remove().unwrap();
        let expected = ["a/leaf/x/y", "a/leaf/x", "a/leaf"].map(|path| fake.path(path));
        assert_eq!(report.removed, expected);
        assert!(fake.has("a"));
        assert!(plan.id().open(&host(&[&fake])).unwrap().is_none());
        // The other hold on it finds nothing left to do.
        assert_eq!(leaf.remove().unwrap(), RemoveReport::default());
    }

    /// Twin: `lifecycle::a_leaf_from_its_making_to_its_end`.
    #[test]
    fn the_living_keep_their_leaf() {
        let fake = Fake::new(Version::V1, "pids", &["pids.max max"]);
        let plan =
            LeafPlan::new(&host(&[&fake]), Version::V1, "a", "leaf", &Limits::new()).unwrap();
        let leaf = plan.create().unwrap();
        fake.write("a/leaf/cgroup.procs", "77\n");
        let error = leaf.remove().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("[77]"), "{error}");
        assert!(fake.has("a/leaf"));
    }
}

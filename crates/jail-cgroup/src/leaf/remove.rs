//! Removing a leaf, and the parents made for the leaf.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::dir::Dir;
use crate::leaf::Leaf;
use crate::leaf::members::{self, Sample};
use crate::leaf::owner;
use crate::leaf::wait;
use crate::sys::Errno;
use crate::{Error, ErrorKind, Result};

/// Longest wait for the kernel to release a group whose processes have exited.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(5);

/// Result of [`Leaf::remove`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct RemoveReport {
    /// Directories in the order of removal, hierarchy by hierarchy: groups below the leaf, the leaf, and empty parents
    /// that this crate had made.
    #[cfg_attr(feature = "serde", serde(serialize_with = "crate::path_text::serialize_all"))]
    pub removed: Vec<PathBuf>,
}

impl Leaf {
    /// Removes the leaf with all groups below, bottom-up, in every hierarchy (rmdir(2)), and then the parents that
    /// [`LeafPlan::create`](crate::LeafPlan::create) had made, if they are empty. Other parents stay. A leaf that was
    /// removed is fine.
    ///
    /// # Errors
    /// - [`Busy`](ErrorKind::Busy) if the leaf has processes: [`kill`](Self::kill) and [`wait_empty`](Self::wait_empty) come
    ///   first. [`LeafId::open`](crate::LeafId::open) opens the leaf again.
    /// - [`Foreign`](ErrorKind::Foreign) if the leaf is not its owner's.
    pub fn remove(self) -> Result<RemoveReport> {
        self.claim_rest("remove the leaf")?;
        if !self.is_empty()? {
            return Err(living(&self.id.paths().next().unwrap_or_default(), &self.sample()?));
        }
        let mut report = RemoveReport::default();
        for group in &self.groups {
            let Some((parent, name)) = group.below.parent().zip(group.below.file_name()) else {
                continue;
            };
            if let Some(dir) = group.mount.open_if_exists(parent)? {
                let now = dir.open_if_exists(name)?;
                if now.map_or(Ok(false), |now| now.is_same(&group.dir))? {
                    remove_tree(&dir, Path::new(name), &mut report.removed)?;
                }
            }
            remove_parents(&group.mount, parent, &mut report.removed)?;
        }
        Ok(report)
    }
}

fn living(path: &Path, members: &Sample) -> Error {
    Error::new(ErrorKind::Busy, "remove the leaf")
        .at(path)
        .because(format!("{members} are in it"))
        .hinted("Kill them and wait until the leaf is empty.")
}

/// Removes the group `name` in `parent` with all groups below. A group that does not exist is fine.
pub(crate) fn remove_tree(parent: &Dir, name: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    let Some(top) = parent.open_if_exists(name)? else { return Ok(()) };
    let paths = members::below(&top)?;
    let deadline = Instant::now() + RELEASE_TIMEOUT;
    for path in paths.iter().rev() {
        let group = name.join(path);
        let (dir, last) = match (group.parent(), group.file_name()) {
            (Some(dir), Some(last)) if !dir.as_os_str().is_empty() => (parent.open(dir), last),
            _ => (parent.open(""), group.as_os_str()),
        };
        let dir = match dir {
            Ok(dir) => dir,
            Err(error) if error.is_gone() => continue,
            Err(error) => return Err(error),
        };
        if remove_one(&dir, Path::new(last), deadline)? {
            removed.push(dir.path().join(last));
        }
    }
    Ok(())
}

/// Removes one group. Returns false if it did not exist. Processes that have exited keep a group busy for a moment.
fn remove_one(parent: &Dir, name: &Path, deadline: Instant) -> Result<bool> {
    loop {
        let error = match parent.remove(name) {
            Ok(()) => return Ok(true),
            Err(error) if error.is_gone() => return Ok(false),
            Err(error) => error,
        };
        if error.errno() != Some(Errno::BUSY) {
            return Err(error);
        }
        let Some(group) = parent.open_if_exists(name)? else { return Ok(false) };
        let members = Sample::read(&group)?;
        if !members.is_empty() {
            return Err(living(group.path(), &members));
        }
        if Instant::now() >= deadline {
            return Err(error.because("the group has no processes, and is busy all the same"));
        }
        wait::pause();
    }
}

/// Removes parents upwards, as long as this crate made them and they are empty.
fn remove_parents(mount: &Dir, parent: &Path, removed: &mut Vec<PathBuf>) -> Result<()> {
    let named = parent.ancestors().take_while(|path| !path.as_os_str().is_empty());
    for path in named {
        let ours = mount.open_if_exists(path)?.is_some_and(|dir| owner::is_marked_parent(&dir));
        if !ours {
            return Ok(());
        }
        match mount.remove(path) {
            Ok(()) => removed.push(mount.path().join(path)),
            // In use, or removed by another process.
            Err(error)
                if matches!(error.errno(), Some(Errno::BUSY | Errno::NOTEMPTY))
                    || error.is_gone() =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Tests on fake trees; each names a twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{CgroupVersion, LeafPlan, Limits};

    /// Twin: `lifecycle::subgroups_count` and `lifecycle::the_operators_parent_stays`.
    #[test]
    fn removal_keeps_the_operators_parent() {
        let fake = Fake::new(CgroupVersion::V2, "pids", &["pids.max max"]);
        let operators = Dir::open_system(fake.path("")).unwrap();
        operators.make("a").unwrap();
        let plan =
            LeafPlan::new(&host(&[&fake]), CgroupVersion::V2, "a", "leaf", &Limits::new()).unwrap();
        let leaf = plan.create().unwrap();
        leaf.groups[0].dir.make("x").unwrap();
        leaf.groups[0].dir.open("x").unwrap().make("y").unwrap();
        let found = plan.id().open(&host(&[&fake])).unwrap().unwrap();
        let report = found.remove().unwrap();
        let expected = ["a/leaf/x/y", "a/leaf/x", "a/leaf"].map(|path| fake.path(path));
        assert_eq!(report.removed, expected);
        assert!(fake.has("a"));
        assert!(plan.id().open(&host(&[&fake])).unwrap().is_none());
        assert_eq!(leaf.remove().unwrap(), RemoveReport::default());
    }

    /// Twin: `lifecycle::a_leaf_lives_and_ends`.
    #[test]
    fn refuses_to_remove_processes() {
        let fake = Fake::new(CgroupVersion::V1, "pids", &["pids.max max"]);
        let plan =
            LeafPlan::new(&host(&[&fake]), CgroupVersion::V1, "a", "leaf", &Limits::new()).unwrap();
        let leaf = plan.create().unwrap();
        fake.write("a/leaf/cgroup.procs", "77\n");
        let error = leaf.remove().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("[77]"), "{error}");
        assert!(fake.has("a/leaf"));
    }
}

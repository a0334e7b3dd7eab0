//! Finding the leaves of an owner by name, without a record.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};

use crate::dir::Dir;
use crate::host::Mount;
use crate::leaf::owner::{Claim, Owner};
use crate::leaf::{Group, HierarchyPath, Leaf, LeafId};
use crate::plan::GroupPath;
use crate::{CgroupVersion, Controller, Error, ErrorKind, Host, Result};

/// Most groups visited in one hierarchy.
const GROUPS_MAX: usize = 1 << 18;

/// Result of [`Host::leaves_owned_by`].
#[derive(Debug, Default)]
#[non_exhaustive]
#[must_use]
pub struct OwnedLeaves {
    /// Leaves that were found.
    pub leaves: Vec<Leaf>,
    /// Parts of the hierarchies that could not be searched: a leaf may be there.
    pub unsearched: Vec<Error>,
}

impl Host {
    /// Searches each visible hierarchy of both versions for leaves called `name` that carry the mark of the owner `mark`
    /// ([`LeafPlan::owned_by`](crate::LeafPlan::owned_by)), at any depth.
    ///
    /// Reads each group's directory once (openat2(2), getdents64(2)): for recovery, not for every launch. Groups that come
    /// and go meanwhile may be missed.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a mark or a name that no leaf can have. A hierarchy that cannot be
    /// searched is in [`OwnedLeaves::unsearched`], and the others are searched all the same.
    ///
    /// # Privileges
    /// CAP_SYS_ADMIN in the initial user namespace, to read marks.
    pub fn leaves_owned_by(&self, mark: &str, name: &str) -> Result<OwnedLeaves> {
        let owner = Owner::new(mark)?;
        // Refuses a name with a slash.
        GroupPath::new("parent")?.join(name)?;
        let mut found = OwnedLeaves::default();
        for mount in self.widest_mounts() {
            let mut groups = Vec::new();
            if let Err(error) = search(mount, name, &owner, &mut groups, &mut found.unsearched) {
                found.unsearched.push(error);
            }
            for group in groups {
                found.add(mount.version(), group, &owner);
            }
        }
        Ok(found)
    }

    /// Returns the mounts that together show each part of each hierarchy.
    fn widest_mounts(&self) -> Vec<&Mount> {
        let mut mounts: Vec<_> = self.mounts().iter().collect();
        mounts.sort_by_key(|mount| (mount.root().components().count(), mount.is_read_only()));
        let mut widest: Vec<&Mount> = Vec::new();
        for mount in mounts {
            if !widest.iter().any(|other| shows_all_of(other, mount)) {
                widest.push(mount);
            }
        }
        widest
    }
}

impl OwnedLeaves {
    /// Adds a directory: to the v1 leaf at the same place in other hierarchies, or as a leaf of its own.
    fn add(&mut self, version: CgroupVersion, group: Group, owner: &Owner) {
        let same = |leaf: &&mut Leaf| {
            version == CgroupVersion::V1
                && leaf.id.version == version
                && leaf.id.paths.iter().all(|path| path.full_path() == group.path.full_path())
        };
        match self.leaves.iter_mut().find(same) {
            Some(leaf) => {
                leaf.id.paths.push(group.path.clone());
                leaf.groups.push(group);
            }
            None => {
                let paths = vec![group.path.clone()];
                let id = LeafId { version, paths, owner: Some(owner.clone()) };
                self.leaves.push(Leaf { id, groups: vec![group], writes: Vec::new() });
            }
        }
    }
}

/// Searches one mount, breadth first: one directory is open at a time.
fn search(
    mount: &Mount,
    name: &str,
    owner: &Owner,
    groups: &mut Vec<Group>,
    unsearched: &mut Vec<Error>,
) -> Result<()> {
    let top = mount.open()?;
    let controllers: Vec<Controller> = mount.controllers().to_vec();
    let mut pending = VecDeque::from([PathBuf::new()]);
    let mut seen = 0;
    while let Some(path) = pending.pop_front() {
        let dir = match top.open(&path) {
            Ok(dir) => dir,
            Err(error) if error.is_gone() => continue,
            Err(error) => {
                unsearched.push(error);
                continue;
            }
        };
        if path.file_name().is_some_and(|last| last == name) && is_owned(&dir, owner, unsearched) {
            let hierarchy_path = HierarchyPath::new(mount, &controllers, &GroupPath::new(&path)?);
            let full_path = mount.root().join(&path);
            groups.push(Group {
                path: hierarchy_path,
                mount: top.clone(),
                below: path,
                full_path,
                dir,
            });
            continue;
        }
        match dir.subdirs() {
            Ok(names) => pending.extend(names.into_iter().map(|name| path.join(name))),
            Err(error) if error.is_gone() => {}
            Err(error) => unsearched.push(error),
        }
        seen += 1;
        if seen + pending.len() > GROUPS_MAX {
            return Err(Error::new(ErrorKind::Unexpected, "search the hierarchy")
                .at(mount.path())
                .because(format!("the hierarchy has more than {GROUPS_MAX} groups")));
        }
    }
    Ok(())
}

fn is_owned(dir: &Dir, owner: &Owner, unsearched: &mut Vec<Error>) -> bool {
    match Claim::read(dir) {
        Ok(claim) => claim.is_of(owner),
        Err(error) if error.is_gone() => false,
        Err(error) => {
            unsearched.push(error);
            false
        }
    }
}

/// Returns true if every group that `other` shows can be reached through `mount`.
fn shows_all_of(mount: &Mount, other: &Mount) -> bool {
    let is_plain = |path: &Path| !path.components().any(|part| part.as_os_str() == "..");
    mount.is_of(other.version(), other.controllers())
        && is_plain(mount.root())
        && is_plain(other.root())
        && other.root().starts_with(mount.root())
}

/// Tests on fake trees; each names a twin on a real hierarchy in `tests/cgroup`.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::fake::{Fake, host};
    use crate::{LeafPlan, Limits};

    /// Twin: `owner::leaves_are_found_by_owner`.
    #[test]
    fn leaves_are_found_by_owner() {
        let memory = Fake::new(CgroupVersion::V1, "memory", &[]);
        let freezer = Fake::new(CgroupVersion::V1, "freezer", &["freezer.state THAWED"]);
        let unified = Fake::new(CgroupVersion::V2, "", &[]);
        let host = host(&[&memory, &freezer, &unified]);
        let leaf = |version, parent: &str, owner: &str| {
            let plan = LeafPlan::new(&host, version, parent, "vm", &Limits::new()).unwrap();
            plan.owned_by(owner).unwrap().create().unwrap()
        };
        let made = [leaf(CgroupVersion::V1, "a/b", "one"), leaf(CgroupVersion::V2, "c", "one")];
        let _other = leaf(CgroupVersion::V1, "d", "two");
        let found = host.leaves_owned_by("one", "vm").unwrap();
        assert!(found.unsearched.is_empty(), "{found:?}");
        let paths = |leaf: &Leaf| {
            let mut paths: Vec<_> = leaf.paths().collect();
            paths.sort();
            paths
        };
        let mut paths_found: Vec<_> = found.leaves.iter().map(paths).collect();
        let mut expected: Vec<_> = made.iter().map(paths).collect();
        paths_found.sort();
        expected.sort();
        assert_eq!(paths_found, expected);
        assert!(host.leaves_owned_by("one", "other").unwrap().leaves.is_empty());
        for leaf in found.leaves {
            assert_eq!(leaf.owner(), Some("one"));
            leaf.remove().unwrap();
        }
        // A hierarchy that is broken does not hide the others.
        let _again = leaf(CgroupVersion::V2, "c", "one");
        memory.write(".fake", "");
        let found = host.leaves_owned_by("one", "vm").unwrap();
        assert_eq!((found.leaves.len(), found.unsearched.len()), (1, 1));
    }
}

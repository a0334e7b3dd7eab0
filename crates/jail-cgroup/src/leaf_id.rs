//! Finding a leaf again: [`LeafId`].

use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

#[cfg(doc)]
use crate::ErrorKind;
use crate::dir::Dir;
use crate::group_path::GroupPath;
use crate::leaf::{self, Group, Leaf};
use crate::mount::Mount;
use crate::owner::{self, Claim, Owner};
use crate::{Controller, Host, Result, Version};

/// What is needed to find a leaf again, by another process and after a restart: its version, and its place in each
/// hierarchy. For a launcher's record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeafId {
    pub(crate) version: Version,
    pub(crate) places: Vec<Place>,
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub(crate) owner: Option<Owner>,
}

/// A leaf's place in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Place {
    /// v1: those bound to the hierarchy. v2: those the leaf is to have.
    controllers: Vec<Controller>,
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    mount: PathBuf,
    /// The group of the hierarchy that is mounted there.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    root: PathBuf,
    path: GroupPath,
    /// Whether a launcher is told to join here.
    pub(crate) told: bool,
}

impl Place {
    pub(crate) fn new(mount: &Mount, controllers: &[Controller], path: &GroupPath) -> Self {
        Self {
            controllers: controllers.to_vec(),
            mount: mount.point().to_owned(),
            root: mount.root().to_owned(),
            path: path.clone(),
            told: true,
        }
    }

    pub(crate) fn controllers(&self) -> &[Controller] {
        &self.controllers
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// Where it is reached when the leaf is made.
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    pub(crate) fn path(&self) -> &GroupPath {
        &self.path
    }

    /// The group's path from the hierarchy's root.
    pub(crate) fn full_path(&self) -> PathBuf {
        self.root.join(self.path.as_path())
    }

    /// The leaf's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.mount.join(self.path.as_path())
    }

    /// The mount to reach it through, and its path from there: the same mount as ever, or another one of the same hierarchy
    /// that shows it. What a mount's root is called depends on the control group namespace it is read in, so the same
    /// mount point will do too.
    pub(crate) fn find<'a>(
        &self,
        version: Version,
        host: &'a Host,
    ) -> Option<(&'a Mount, PathBuf)> {
        let full = self.full_path();
        host.mounts()
            .iter()
            .filter(|mount| mount.is_of(version, &self.controllers))
            .filter_map(|mount| {
                // A root that was read in a namespace further down leads up: that says nothing here.
                let below = full.strip_prefix(mount.root()).ok().filter(|path| is_plain(path));
                let same = (mount.point() == self.mount).then(|| self.path.as_path());
                Some((mount, below.or(same)?.to_owned()))
            })
            .min_by_key(|(mount, _)| (mount.is_read_only(), mount.point() != self.mount))
    }
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

impl LeafId {
    /// Which version of control groups the leaf is of.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// The leaf's directories: one in v2, one per hierarchy in v1.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.places.iter().map(Place::dir)
    }

    /// Returns the mark of the leaf's owner, if it has one.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_ref().map(Owner::as_str)
    }

    /// Opens the leaf if it still exists; `None` if it exists in no hierarchy (openat2(2)).
    ///
    /// A leaf with an owner is opened only if each of its directories carries the owner's mark. One directory may lack a
    /// mark: a creation that was cut short leaves such a directory, without processes.
    ///
    /// # Errors
    /// [`Foreign`](ErrorKind::Foreign) if a directory carries another owner's mark, or has processes and no mark. Any other
    /// kind if a directory exists and cannot be opened.
    pub fn open(&self, host: &Host) -> Result<Option<Leaf>> {
        let mut groups = Vec::new();
        for place in &self.places {
            let Some((mount, path)) = place.find(self.version, host) else { continue };
            let mount = mount.open()?;
            if let Some(dir) = mount.open_if_there(&path)? {
                if let Some(owner) = &self.owner {
                    refuse_foreign("open the leaf", &dir, self.version, owner)?;
                }
                groups.push(Group { place: place.clone(), mount, path, dir });
            }
        }
        let leaf = Leaf { id: self.clone(), groups, writes: Vec::new() };
        Ok((!leaf.groups.is_empty()).then_some(leaf))
    }
}

impl Leaf {
    /// Checks again that the leaf's directories are its owner's; the groups of which that is proven. A group without a claim
    /// is empty, and may be another creator's in a moment.
    pub(crate) fn owned_groups(&self, operation: &'static str) -> Result<Vec<&Group>> {
        let Some(owner) = &self.id.owner else { return Ok(self.groups.iter().collect()) };
        let mut owned = Vec::new();
        for group in &self.groups {
            if refuse_foreign(operation, &group.dir, self.id.version, owner)?.is_of(owner) {
                owned.push(group);
            }
        }
        Ok(owned)
    }

    /// Claims the directories that a creation of the same owner, cut short, left without a claim.
    pub(crate) fn claim_rest(&self, operation: &'static str) -> Result<()> {
        let Some(owner) = &self.id.owner else { return Ok(()) };
        for group in &self.groups {
            if refuse_foreign(operation, &group.dir, self.id.version, owner)? == Claim::None {
                match Claim::make(&group.dir, Some(owner)) {
                    Err(error) if error.errno() == Some(Errno::EXIST) => {}
                    Err(error) if leaf::is_gone(&error) => continue,
                    done => done?,
                }
                refuse_foreign(operation, &group.dir, self.id.version, owner)?;
            }
        }
        Ok(())
    }
}

/// Refuses a directory that is not `owner`'s; the claim that was read. A directory without a claim is nobody's as long as
/// it has no processes.
pub(crate) fn refuse_foreign(
    operation: &'static str,
    dir: &Dir,
    version: Version,
    owner: &Owner,
) -> Result<Claim> {
    let claim = Claim::read(dir)?;
    let accepted = match &claim {
        Claim::None => match leaf::is_empty(dir, version) {
            Err(error) if leaf::is_gone(&error) => true,
            empty => empty?,
        },
        claim => claim.is_of(owner),
    };
    if accepted { Ok(claim) } else { Err(owner::foreign(operation, dir, owner, &claim)) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostTexts, LeafPlan, Limits};

    /// A host with one v2 mount, as it is called in some control group namespace.
    fn host(root: &str, point: &str) -> Host {
        let mountinfo = format!("1 1 0:1 {root} {point} rw - cgroup2 none rw");
        Host::from_texts(&HostTexts { mountinfo: mountinfo.as_bytes(), ..HostTexts::default() })
    }

    fn found(made: &Host, later: &Host) -> Option<PathBuf> {
        let plan = LeafPlan::new(made, Version::V2, "a", "leaf", &Limits::new()).unwrap();
        let (mount, path) = plan.id().places[0].find(Version::V2, later)?;
        Some(mount.point().join(path))
    }

    #[test]
    fn a_leaf_is_found_through_another_mount_and_from_another_namespace() {
        for (root, point, later_root, later_point, expected) in [
            ("/", "/cg", "/", "/cg", Some("/cg/a/leaf")),
            ("/", "/cg", "/a", "/mnt", Some("/mnt/leaf")),
            ("/a", "/cg", "/", "/mnt", Some("/mnt/a/a/leaf")),
            ("/x", "/cg", "/y", "/mnt", None),
            // Made inside a namespace whose root is two groups down, and looked for from outside, and the reverse.
            ("/../..", "/cg", "/", "/cg", Some("/cg/a/leaf")),
            ("/../..", "/cg", "/", "/mnt", None),
            ("/", "/cg", "/../..", "/cg", Some("/cg/a/leaf")),
        ] {
            let path = found(&host(root, point), &host(later_root, later_point));
            assert_eq!(path.as_deref(), expected.map(Path::new), "{root} {later_root}");
        }
    }
}

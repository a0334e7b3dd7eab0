//! Finding a leaf again: [`LeafId`].

use std::path::{Component, Path, PathBuf};

use crate::group_path::GroupPath;
use crate::leaf::{Group, Leaf};
use crate::mount::Mount;
use crate::{Controller, Host, Result, Version};

/// What is needed to find a leaf again, by another process and after a restart: its version, and its place in each
/// hierarchy. For a launcher's record.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeafId {
    pub(crate) version: Version,
    pub(crate) places: Vec<Place>,
}

/// A leaf's place in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct Place {
    /// v1: those bound to the hierarchy. v2: those the leaf is to have.
    controllers: Vec<Controller>,
    mount: PathBuf,
    /// The group of the hierarchy that is mounted there.
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

    /// The leaf's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.mount.join(self.path.as_str())
    }

    /// The mount to reach it through, and its path from there: the same mount as ever, or another one of the same hierarchy
    /// that shows it. What a mount's root is called depends on the control group namespace it is read in, so the same
    /// mount point will do too.
    pub(crate) fn find<'a>(
        &self,
        version: Version,
        host: &'a Host,
    ) -> Option<(&'a Mount, PathBuf)> {
        let full = self.root.join(self.path.as_str());
        host.mounts()
            .iter()
            .filter(|mount| mount.is_of(version, &self.controllers))
            .filter_map(|mount| {
                // A root that was read in a namespace further down leads up: that says nothing here.
                let below = full.strip_prefix(mount.root()).ok().filter(|path| is_plain(path));
                let same = (mount.point() == self.mount).then(|| Path::new(self.path.as_str()));
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

    /// Opens the leaf where it still exists; `None` where it exists in no hierarchy (openat2(2)).
    ///
    /// # Errors
    /// Where a directory is there and cannot be opened.
    pub fn open(&self, host: &Host) -> Result<Option<Leaf>> {
        let mut groups = Vec::new();
        for place in &self.places {
            let Some((mount, path)) = place.find(self.version, host) else { continue };
            let mount = mount.open()?;
            if let Some(dir) = mount.open_if_there(&path)? {
                groups.push(Group { place: place.clone(), mount, path, dir });
            }
        }
        let leaf = Leaf { id: self.clone(), groups, writes: Vec::new() };
        Ok((!leaf.groups.is_empty()).then_some(leaf))
    }
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

//! The id of a leaf: [`LeafId`].

use std::path::{Component, Path, PathBuf};

use crate::host::Mount;
use crate::leaf::owner::Owner;
use crate::plan::GroupPath;
use crate::{CgroupVersion, Controller, Host};

/// Id that finds a leaf again, from another process and after a restart: the version, and the path in each hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LeafId {
    pub(crate) version: CgroupVersion,
    pub(crate) paths: Vec<HierarchyPath>,
    #[cfg_attr(feature = "serde", serde(default, skip_serializing_if = "Option::is_none"))]
    pub(crate) owner: Option<Owner>,
}

/// Path of a leaf in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub(crate) struct HierarchyPath {
    /// v1: controllers bound to the hierarchy. v2: controllers that the leaf is to have.
    controllers: Vec<Controller>,
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    mount: PathBuf,
    /// Group of the hierarchy that is mounted there.
    #[cfg_attr(feature = "serde", serde(with = "crate::path_text"))]
    root: PathBuf,
    path: GroupPath,
    /// True if a launcher joins here by settings.
    pub(crate) joined_by_settings: bool,
}

impl HierarchyPath {
    pub(crate) fn new(mount: &Mount, controllers: &[Controller], path: &GroupPath) -> Self {
        Self {
            controllers: controllers.to_vec(),
            mount: mount.path().to_owned(),
            root: mount.root().to_owned(),
            path: path.clone(),
            joined_by_settings: true,
        }
    }

    pub(crate) fn controllers(&self) -> &[Controller] {
        &self.controllers
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.controllers.contains(&controller)
    }

    /// Returns the mount point of the mount that the leaf was planned for.
    pub(crate) fn mount(&self) -> &Path {
        &self.mount
    }

    pub(crate) fn path(&self) -> &GroupPath {
        &self.path
    }

    /// Returns the path from the hierarchy's root.
    pub(crate) fn full_path(&self) -> PathBuf {
        self.root.join(self.path.as_path())
    }

    /// Returns the leaf's directory.
    pub(crate) fn dir(&self) -> PathBuf {
        self.mount.join(self.path.as_path())
    }

    /// Returns a mount that shows the leaf, and the leaf's path below that mount: the same mount, or another one of the same
    /// hierarchy. The root of a mount has another name in another control group namespace, so the same mount point will
    /// do too.
    pub(crate) fn find<'a>(
        &self,
        version: CgroupVersion,
        host: &'a Host,
    ) -> Option<(&'a Mount, PathBuf)> {
        let full = self.full_path();
        host.mounts()
            .iter()
            .filter(|mount| mount.is_of(version, &self.controllers))
            .filter_map(|mount| {
                // A root from a namespace further down leads up, and is not comparable.
                let below = full.strip_prefix(mount.root()).ok().filter(|path| is_plain(path));
                let same = (mount.path() == self.mount).then(|| self.path.as_path());
                Some((mount, below.or(same)?.to_owned()))
            })
            .min_by_key(|(mount, _)| (mount.is_read_only(), mount.path() != self.mount))
    }
}

fn is_plain(path: &Path) -> bool {
    path.components().all(|part| matches!(part, Component::Normal(_)))
}

impl LeafId {
    /// Returns the version of control groups that the leaf is of.
    #[must_use]
    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// Returns the leaf's directories: one in v2, one per hierarchy in v1.
    pub fn paths(&self) -> impl Iterator<Item = PathBuf> {
        self.paths.iter().map(HierarchyPath::dir)
    }

    /// Returns the mark of the leaf's owner, if there is one.
    #[must_use]
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_ref().map(Owner::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{HostTexts, LeafPlan, Limits};

    /// Returns a host with one v2 mount, as a control group namespace shows the mount.
    fn host(root: &str, point: &str) -> Host {
        let mountinfo = format!("1 1 0:1 {root} {point} rw - cgroup2 none rw");
        Host::from_texts(&HostTexts { mountinfo: mountinfo.as_bytes(), ..HostTexts::default() })
    }

    fn found(made: &Host, later: &Host) -> Option<PathBuf> {
        let plan = LeafPlan::new(made, CgroupVersion::V2, "a", "leaf", &Limits::new()).unwrap();
        let (mount, path) = plan.id().paths[0].find(CgroupVersion::V2, later)?;
        Some(mount.path().join(path))
    }

    #[test]
    fn another_mount_shows_the_leaf() {
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

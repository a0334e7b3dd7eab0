//! Finding a leaf again: [`LeafId`].

use std::path::{Path, PathBuf};

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
                let below = full.strip_prefix(mount.root()).map(Path::to_owned);
                let same = (mount.point() == self.mount).then(|| self.path.as_str().into());
                Some((mount, below.ok().or(same)?))
            })
            .min_by_key(|(mount, _)| (mount.is_read_only(), mount.point() != self.mount))
    }
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

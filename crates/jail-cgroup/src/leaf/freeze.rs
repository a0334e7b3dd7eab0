//! Freezing and thawing a leaf.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::dir::Dir;
use crate::host::membership;
use crate::leaf::{Leaf, keyed, wait};
use crate::{CgroupVersion, Controller, Error, ErrorKind, Host, Result};

impl Leaf {
    /// Stops every process in the leaf and below, and waits until all processes have stopped: v2 `cgroup.freeze`, v1
    /// `freezer.state`. A `timeout` that no clock can represent means for ever.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if a process is still running: it sleeps in the kernel for an event that does
    /// not come. The others stay frozen. [`Unsupported`](ErrorKind::Unsupported) on v1 without a freezer.
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now().checked_add(timeout);
        let dir = self.freezer("freeze the leaf")?;
        let frozen = match self.version() {
            CgroupVersion::V2 => {
                dir.write("cgroup.freeze", "1")?;
                wait::event(dir, "frozen", 1, deadline)?
            }
            CgroupVersion::V1 => {
                dir.write("freezer.state", "FROZEN")?;
                // v1 sends no event: the kernel computes the state when the file is read.
                wait::until(deadline, || Ok(dir.read("freezer.state")?.starts_with(b"FROZEN")))?
            }
        };
        if frozen {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Timeout, "freeze the leaf")
            .at(dir.path())
            .because(format!("after {timeout:?} not all processes have stopped")))
    }

    /// Lets every process in the leaf continue. A group above that is frozen keeps the processes frozen.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) on v1 without a freezer.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer("thaw the leaf")?;
        match self.version() {
            CgroupVersion::V2 => dir.write("cgroup.freeze", "0"),
            CgroupVersion::V1 => dir.write("freezer.state", "THAWED"),
        }
    }

    /// Returns true if a process that starts in the leaf would be frozen: see [`frozen_by`](Self::frozen_by).
    ///
    /// # Errors
    /// As [`frozen_by`](Self::frozen_by).
    pub fn is_frozen(&self) -> Result<bool> {
        Ok(self.frozen_by()?.is_some())
    }

    /// Returns the group that is frozen, or is about to be: the leaf, or the nearest group above it (v2 `cgroup.freeze`
    /// and `cgroup.events`, v1 `freezer.self_freezing` and `freezer.parent_freezing`).
    ///
    /// A v1 leaf without a group in the freezer's hierarchy leaves its processes in the caller's group there; that
    /// group is looked at then. A leaf that was removed is not frozen.
    ///
    /// # Errors
    /// [`Privilege`](ErrorKind::Privilege) if the caller may not read the files.
    pub fn frozen_by(&self) -> Result<Option<PathBuf>> {
        if self.groups.is_empty() {
            return Ok(None);
        }
        let Some(group) = self.group_of(Controller::Freezer) else { return self.frozen_outside() };
        frozen_at_or_above(&group.mount, &group.below, self.version())
    }

    /// Returns the frozen group nearest above the leaf.
    pub(crate) fn frozen_above(&self) -> Result<Option<PathBuf>> {
        let Some(group) = self.group_of(Controller::Freezer) else { return Ok(None) };
        match group.below.parent() {
            Some(parent) => frozen_at_or_above(&group.mount, parent, self.version()),
            None => Ok(None),
        }
    }

    /// Returns the path of the frozen group at or above the calling thread's own group in the v1 freezer's hierarchy, if
    /// there is one.
    fn frozen_outside(&self) -> Result<Option<PathBuf>> {
        let host = Host::discover()?;
        let Some(mount) = host.v1_mount(Controller::Freezer) else { return Ok(None) };
        let text = Dir::open_system("/proc/thread-self")?.read("cgroup")?;
        let own = membership::path_of(&text, CgroupVersion::V1, &[Controller::Freezer]);
        let below = own.as_ref().and_then(|own| own.strip_prefix(mount.root()).ok());
        match below {
            Some(below) => frozen_at_or_above(&mount.open()?, below, CgroupVersion::V1),
            None => Ok(None),
        }
    }

    fn freezer(&self, operation: &'static str) -> Result<&Dir> {
        self.dir_of(Controller::Freezer).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, operation)
                .at(self.paths().next().unwrap_or_default())
                .because("no freezer hierarchy is mounted")
                .hinted("Mount it: mount -t cgroup -o freezer none <directory>.")
        })
    }
}

/// Returns the nearest frozen group on the way from `path` to the mount's top.
fn frozen_at_or_above(mount: &Dir, path: &Path, version: CgroupVersion) -> Result<Option<PathBuf>> {
    let mut state = None;
    for path in path.ancestors() {
        let Some(dir) = mount.open_if_exists(path)? else { continue };
        let is_one = |file: &str| -> Result<bool> {
            Ok(dir.read_if_exists(file)?.is_some_and(|text| text.trim_ascii() == b"1"))
        };
        let own = match version {
            CgroupVersion::V1 => "freezer.self_freezing",
            CgroupVersion::V2 => "cgroup.freeze",
        };
        if is_one(own)? {
            return Ok(Some(dir.path().to_owned()));
        }
        if state.is_none() {
            // Whether a group further up is frozen, be it above the mount's top.
            let inherited = match version {
                CgroupVersion::V1 => is_one("freezer.parent_freezing")?,
                CgroupVersion::V2 => dir
                    .read_if_exists("cgroup.events")?
                    .is_some_and(|text| keyed::number(&text, "frozen") == Some(1)),
            };
            state = Some((inherited, dir.path().to_owned()));
        }
    }
    Ok(state.and_then(|(inherited, path)| inherited.then_some(path)))
}

//! A tmpfs: a second device for copies, and a filesystem small enough to fill.

use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// A tmpfs (tmpfs(5)) over a directory, unmounted on drop.
#[derive(Debug)]
pub struct Tmpfs {
    point: PathBuf,
}

impl Tmpfs {
    /// Mounts a tmpfs over the existing directory `point` with `options`, such as `size=1m,mode=0755`.
    ///
    /// # Panics
    /// If mount(2) fails. A missing privilege is an error of the run, not a reason for a skip.
    #[must_use]
    pub fn mount(point: &Path, options: &str) -> Self {
        Self::mount_with(point, options, MsFlags::empty())
    }

    /// Mounts a tmpfs with mount flags, such as `MsFlags::MS_NODEV`.
    ///
    /// # Panics
    /// See [`Tmpfs::mount`].
    #[must_use]
    pub fn mount_with(point: &Path, options: &str, flags: MsFlags) -> Self {
        mount(Some("tmpfs"), point, Some("tmpfs"), flags, Some(options))
            .unwrap_or_else(|err| panic!("mount a tmpfs at {}: {err}", point.display()));
        Self { point: point.to_owned() }
    }

    /// Returns the mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        if let Err(err) = umount2(&self.point, MntFlags::MNT_DETACH) {
            eprintln!("left behind: tmpfs at {}: {err}", self.point.display());
        }
    }
}

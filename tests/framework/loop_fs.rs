//! Real filesystems for tests, independent of the machine's disk.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{LoopDevice, Scratch, skip};

/// A filesystem that staging must support; reflinks, sparse files and extents differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FsKind {
    /// No reflinks.
    Ext4,
    /// Reflinks; made with them on.
    Xfs,
    /// Reflinks, and copy-on-write for everything.
    Btrfs,
}

impl FsKind {
    /// All kinds, for tests that run on each filesystem.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// Returns the name of the filesystem for mount(2).
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Returns true if the filesystem supports FICLONE.
    #[must_use]
    pub fn reflinks(self) -> bool {
        self != Self::Ext4
    }

    /// Returns the smallest image that mkfs accepts, in bytes.
    fn smallest(self) -> u64 {
        match self {
            Self::Ext4 => 8 << 20,
            Self::Xfs => 320 << 20,
            Self::Btrfs => 128 << 20,
        }
    }

    fn mkfs(self, image: &Path) -> Command {
        let mut command = Command::new(format!("mkfs.{}", self.name()));
        match self {
            // Lazy initialisation would write to the disk during a measurement.
            Self::Ext4 => {
                command.args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            }
            Self::Xfs => command.args(["-q", "-f", "-m", "reflink=1"]),
            Self::Btrfs => command.args(["-q", "-f"]),
        };
        command.arg(image);
        command
    }
}

impl fmt::Display for FsKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A fresh filesystem in a sparse image on a loop device, mounted in the test's private mount namespace.
///
/// Drop unmounts the filesystem, detaches the device and deletes the image. A killed test leaves only the image file:
/// the kernel removes the mount with the namespace, and the device with the mount.
#[derive(Debug)]
pub struct LoopFs {
    kind: FsKind,
    // Dropped in this order: the mount (in `Drop`), the device, the image.
    _device: LoopDevice,
    scratch: Scratch,
}

impl LoopFs {
    /// Makes and mounts a filesystem of at least `bytes`, with mode 0755 on the root directory. A size below the
    /// minimum of `kind` is raised. Returns `None` if this machine lacks the loop driver, the filesystem or mkfs.
    ///
    /// # Errors
    /// If mkfs(8), a loop ioctl or mount(2) fails, for example because of a missing privilege.
    pub fn new(kind: FsKind, bytes: u64) -> anyhow::Result<Option<Self>> {
        let scratch = Scratch::new(kind.name());
        let image = scratch.join("image");
        File::create(&image)
            .and_then(|file| file.set_len(bytes.max(kind.smallest())))
            .with_context(|| format!("make {}", image.display()))?;
        let made = match kind.mkfs(&image).output() {
            Ok(made) => made,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err).with_context(|| format!("start mkfs.{kind}")),
        };
        if !made.status.success() {
            let stderr = String::from_utf8_lossy(&made.stderr);
            bail!("mkfs.{kind}: {}: {}", made.status, stderr.trim());
        }
        let Some(device) = LoopDevice::attach(&image)? else {
            return Ok(None);
        };
        let point = scratch.dir("mnt");
        match mount(Some(device.path()), &point, Some(kind.name()), MsFlags::empty(), None::<&str>)
        {
            Ok(()) => {}
            Err(Errno::ENODEV) => return Ok(None),
            Err(err) => {
                return Err(err).with_context(|| format!("mount {kind} at {}", point.display()));
            }
        }
        let this = Self { kind, _device: device, scratch };
        fs::set_permissions(this.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Some(this))
    }

    /// Calls [`LoopFs::new`], and reports `test` as skipped if the result is `None`.
    ///
    /// # Panics
    /// If [`LoopFs::new`] fails.
    #[must_use]
    pub fn or_skip(test: &str, kind: FsKind, bytes: u64) -> Option<Self> {
        let fs = Self::new(kind, bytes)
            .unwrap_or_else(|err| panic!("make a {kind} filesystem: {err:#}"));
        if fs.is_none() {
            skip(
                test,
                &format!("no {kind}: needs loop devices, {kind} in the kernel and mkfs.{kind}"),
            );
        }
        fs
    }

    /// Returns the kind of the filesystem.
    #[must_use]
    pub fn kind(&self) -> FsKind {
        self.kind
    }

    /// Returns the mount point.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        self.scratch.join("mnt")
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let point = self.path();
        // A mount inside makes umount2 fail with EBUSY: detach both then.
        if let Err(err) =
            umount2(&point, MntFlags::empty()).or_else(|_| umount2(&point, MntFlags::MNT_DETACH))
        {
            eprintln!("left behind: {} at {}: {err}", self.kind, point.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn filesystems_are_mounted_and_removed() {
        for kind in FsKind::ALL {
            let Some(fs) = LoopFs::or_skip("filesystems_are_mounted_and_removed", kind, 0) else {
                continue;
            };
            let point = fs.path();
            fs::write(point.join("file"), "kept").unwrap();
            let mount = crate::mounts::all().into_iter().find(|mount| mount.point == point);
            assert_eq!(mount.unwrap().fstype, kind.name());
            drop(fs);
            assert!(!point.exists());
            assert!(crate::mounts::below(&point).is_empty());
        }
    }
}

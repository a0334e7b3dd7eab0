//! Real filesystems to test on, whatever the machine's own disk has.

use std::fmt;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

use crate::{LoopDevice, Scratch, skip};

/// The filesystems whose differences matter to staging: reflinks, sparse files, extents.
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
    /// All of them, for tests that run on each.
    pub const ALL: [Self; 3] = [Self::Ext4, Self::Xfs, Self::Btrfs];

    /// The name mount(2) knows it by.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Ext4 => "ext4",
            Self::Xfs => "xfs",
            Self::Btrfs => "btrfs",
        }
    }

    /// Whether FICLONE works on it.
    #[must_use]
    pub fn reflinks(self) -> bool {
        self != Self::Ext4
    }

    /// The smallest image its mkfs accepts, in bytes.
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
            // Everything now: lazy initialisation would write to the disk under a measurement.
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
/// On drop it is unmounted, its device detached, its image deleted; a killed test leaves the image file alone, for the
/// mount goes with the namespace and the device with the mount.
#[derive(Debug)]
pub struct LoopFs {
    kind: FsKind,
    // In the order they must go: the mount (in `Drop`), the device, the image.
    _device: LoopDevice,
    scratch: Scratch,
}

impl LoopFs {
    /// Makes and mounts one of at least `bytes` (less than the kind's minimum is raised to it), its root 0755.
    /// `None` when this machine lacks the loop driver, the kernel's filesystem or its mkfs.
    ///
    /// # Errors
    /// When what is there fails: mkfs(8), the loop ioctls, mount(2), for example for want of privilege.
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

    /// [`LoopFs::new`], and where the machine cannot, the skip of `test` is reported.
    ///
    /// # Panics
    /// Where it could and failed.
    #[must_use]
    pub fn or_skip(test: &str, kind: FsKind, bytes: u64) -> Option<Self> {
        let fs =
            Self::new(kind, bytes).unwrap_or_else(|err| panic!("a {kind} to test on: {err:#}"));
        if fs.is_none() {
            skip(
                test,
                &format!("no {kind} here: needs loop devices, the kernel's {kind} and mkfs.{kind}"),
            );
        }
        fs
    }

    /// What it is.
    #[must_use]
    pub fn kind(&self) -> FsKind {
        self.kind
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> std::path::PathBuf {
        self.scratch.join("mnt")
    }
}

impl Drop for LoopFs {
    fn drop(&mut self) {
        let point = self.path();
        // What a test mounted inside must not keep this one.
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
    fn each_filesystem_is_real_and_goes_away() {
        for kind in FsKind::ALL {
            let Some(fs) = LoopFs::or_skip("each_filesystem_is_real_and_goes_away", kind, 0) else {
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

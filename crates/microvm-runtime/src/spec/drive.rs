//! Drives: the guest's disks as files and devices of the host.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::spec::machine::{CacheType, DriveConfig, IoEngine, RateLimiter};
use crate::text_form::text_form;

/// A disk of the guest.
///
/// The name is the drive's id for Firecracker and its file name in the jail. Names of files that the jailer,
/// Firecracker or this crate put there are refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Drive {
    name: String,
    source: PathBuf,
    kind: DriveKind,
    file_name: Option<String>,
    root_device: bool,
    rate_limiter: Option<RateLimiter>,
    cache_type: Option<CacheType>,
    io_engine: Option<IoEngine>,
    partuuid: Option<String>,
}

/// The kind of a drive on the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DriveKind {
    /// Shared with the host and other VMs, never written, never chowned.
    ReadOnly,
    /// A fresh copy-on-write inode, removed with the jail.
    Private,
    /// The very file, written through, under an exclusive lease.
    Persistent,
    /// A block device of the host, read and written.
    BlockDevice,
    /// A block device of the host that no guest can write, for many VMs at once.
    SharedBlockDevice,
    /// The socket of a process on the host that serves the drive.
    VhostUser,
}

text_form!(DriveKind, "kind of drive", {
    ReadOnly => "read_only",
    Private => "private",
    Persistent => "persistent",
    BlockDevice => "block_device",
    SharedBlockDevice => "shared_block_device",
    VhostUser => "vhost_user",
});

impl DriveKind {
    /// Returns the kind of the same device in a VM that is restored from a snapshot: private unless it is shared.
    pub(crate) fn restored(self) -> Self {
        match self {
            Self::ReadOnly => Self::ReadOnly,
            _ => Self::Private,
        }
    }
}

impl Drive {
    /// A shared drive that no guest can write: hard-linked where that is safe, else copied. Never chowned.
    pub fn read_only(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::ReadOnly)
    }

    /// A private writable copy: reflink (`ioctl FICLONE`) where the filesystem can, else a sparse copy. Gone at
    /// removal.
    pub fn private(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::Private)
    }

    /// The very file, written through and kept: under an exclusive lease (`flock(2)`), refused across filesystems.
    ///
    /// Its owner becomes the jail's uid and gid; it must belong to root or to that uid, and have no other name.
    pub fn persistent(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::Persistent)
    }

    /// A block device: a node in the jail with the device's own major and minor (`mknod(2)`), which its uid may read and
    /// write. Nothing keeps it from two VMs at once: that is the caller's to see to.
    pub fn block_device(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::BlockDevice)
    }

    /// The same for reading only: the node belongs to root, 0440 for the VM's group, so that neither the guest nor the VMM can
    /// write through it.
    pub fn shared_block_device(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::SharedBlockDevice)
    }

    /// A drive that a vhost-user backend of the host serves. Firecracker 1.6.0.
    ///
    /// The backend listens at the socket `source`, which is hard-linked into the jail: the socket must be on the chroot
    /// base's filesystem, and writable by the VM's uid or gid. The backend maps the whole memory of the guest.
    pub fn vhost_user(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::VhostUser)
    }

    fn new(name: impl Into<String>, source: impl Into<PathBuf>, kind: DriveKind) -> Self {
        Self {
            name: name.into(),
            source: source.into(),
            kind,
            file_name: None,
            root_device: false,
            rate_limiter: None,
            cache_type: None,
            io_engine: None,
            partuuid: None,
        }
    }

    /// Makes this the root device; without any such call the first drive is.
    #[must_use]
    pub fn root_device(mut self) -> Self {
        self.root_device = true;
        self
    }

    /// Limits the guest's bandwidth and operations on this drive (Firecracker's token buckets).
    #[must_use]
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.rate_limiter = Some(limiter);
        self
    }

    /// Sets the effect of the guest's flushes.
    #[must_use]
    pub fn cache_type(mut self, cache: CacheType) -> Self {
        self.cache_type = Some(cache);
        self
    }

    /// Sets the system calls that Firecracker reads and writes the drive with.
    #[must_use]
    pub fn io_engine(mut self, engine: IoEngine) -> Self {
        self.io_engine = Some(engine);
        self
    }

    /// Boots from the partition of the root device with this unique id.
    #[must_use]
    pub fn partuuid(mut self, uuid: impl Into<String>) -> Self {
        self.partuuid = Some(uuid.into());
        self
    }

    /// Sets the file's name in the jail, instead of the drive's name.
    #[must_use]
    pub fn file_name(mut self, name: impl Into<String>) -> Self {
        self.file_name = Some(name.into());
        self
    }

    /// Returns the drive's id.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file's name in the jail.
    #[must_use]
    pub fn name_in_jail(&self) -> &str {
        self.file_name.as_deref().unwrap_or(&self.name)
    }

    /// Returns the drive's path on the host.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Returns the drive's kind on the host.
    #[must_use]
    pub fn kind(&self) -> DriveKind {
        self.kind
    }

    /// Returns true if [`root_device`](Self::root_device) was called.
    #[must_use]
    pub fn is_root_device(&self) -> bool {
        self.root_device
    }

    /// Returns true if no guest can write the drive.
    pub(crate) fn is_read_only(&self) -> bool {
        matches!(self.kind, DriveKind::ReadOnly | DriveKind::SharedBlockDevice)
    }

    /// Returns the rate limits.
    pub(crate) fn limiter(&self) -> Option<&RateLimiter> {
        self.rate_limiter.as_ref()
    }

    /// The same disk as a snapshot contains it: a file at `source`, private unless it is shared.
    pub(crate) fn restored_from(&self, source: PathBuf) -> Self {
        Self { source, kind: self.kind.restored(), ..self.clone() }
    }

    /// Returns the drive's part of Firecracker's configuration.
    pub(crate) fn config(&self, root_device: bool) -> Result<DriveConfig> {
        let path = format!("/{}", self.name_in_jail());
        let mut config = DriveConfig::new(&self.name, &path)?
            .root_device(root_device)
            .read_only(self.is_read_only());
        if self.kind == DriveKind::VhostUser {
            config = config.vhost_user(&path);
        }
        if let Some(limiter) = &self.rate_limiter {
            config = config.rate_limiter(limiter.clone());
        }
        if let Some(cache) = self.cache_type {
            config = config.cache_type(cache);
        }
        if let Some(engine) = self.io_engine {
            config = config.io_engine(engine);
        }
        if let Some(uuid) = &self.partuuid {
            config = config.partuuid(uuid);
        }
        Ok(config)
    }
}

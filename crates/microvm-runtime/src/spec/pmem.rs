//! Persistent-memory devices: files of the host in the guest's memory.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::spec::drive::DriveKind;
use crate::spec::machine::{PmemConfig, RateLimiter};

/// A file of the host that the guest maps as persistent memory (virtio-pmem). Firecracker 1.14.0.
///
/// The file is staged as a drive's is. Its size is rounded up to 2 MiB in the guest; an empty file is refused by
/// Firecracker. The name is the device's id for Firecracker and the file's name in the jail.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Pmem {
    name: String,
    source: PathBuf,
    kind: DriveKind,
    root_device: bool,
    rate_limiter: Option<RateLimiter>,
}

impl Pmem {
    /// A shared file that no guest can write: hard-linked if that is safe, else copied. Never chowned.
    pub fn read_only(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::ReadOnly)
    }

    /// A private writable copy, removed with the jail.
    pub fn private(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::Private)
    }

    /// The very file, written through and kept: see [`Drive::persistent`](crate::Drive::persistent).
    pub fn persistent(name: impl Into<String>, source: impl Into<PathBuf>) -> Self {
        Self::new(name, source, DriveKind::Persistent)
    }

    fn new(name: impl Into<String>, source: impl Into<PathBuf>, kind: DriveKind) -> Self {
        Self {
            name: name.into(),
            source: source.into(),
            kind,
            root_device: false,
            rate_limiter: None,
        }
    }

    /// Makes this the root device, instead of a drive.
    #[must_use]
    pub fn root_device(mut self) -> Self {
        self.root_device = true;
        self
    }

    /// Limits the guest's flushes. Firecracker 1.16.0.
    #[must_use]
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.rate_limiter = Some(limiter);
        self
    }

    /// Returns the device's id, which is the file's name in the jail.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the file's path on the host.
    #[must_use]
    pub fn source(&self) -> &Path {
        &self.source
    }

    /// Returns the file's kind on the host.
    #[must_use]
    pub fn kind(&self) -> DriveKind {
        self.kind
    }

    /// Returns true if [`root_device`](Self::root_device) was called.
    #[must_use]
    pub fn is_root_device(&self) -> bool {
        self.root_device
    }

    /// The same device as a snapshot contains it: a file at `source`, private unless it is shared.
    pub(crate) fn restored_from(&self, source: PathBuf) -> Self {
        Self { source, kind: self.kind.restored(), ..self.clone() }
    }

    /// Returns the device's part of Firecracker's configuration.
    pub(crate) fn config(&self) -> PmemConfig {
        PmemConfig::new(&self.name, &format!("/{}", self.name))
            .root_device(self.root_device)
            .read_only(self.kind == DriveKind::ReadOnly)
            .rate_limiter(self.rate_limiter.clone())
    }
}

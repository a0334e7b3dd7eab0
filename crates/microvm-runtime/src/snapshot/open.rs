//! A snapshot on the host: [`Snapshot`].

use std::path::Path;

use jail_cmd::JailerVersion;
use jail_fs::{Artifact, Dir, Name, TrustedDir};

use super::cpu::Cpu;
use super::digest;
use super::manifest::{DRIVES, Manifest, SnapshotFile};
use super::options::SnapshotKind;
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};

/// A snapshot of a VM: a directory of root's with the guest's memory, the state of its devices, its drives and a
/// manifest.
///
/// The directory holds everything but block devices. To move a snapshot, copy the directory; owners and modes must stay.
#[derive(Debug, Clone)]
pub struct Snapshot {
    dir: TrustedDir,
    manifest: Manifest,
}

impl Snapshot {
    /// Opens the snapshot in the directory `dir` (`openat2(2)`, `statx(2)`), and checks the manifest, and owner, mode and
    /// size of each file.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the directory or a file is missing; [`Untrusted`](ErrorKind::Untrusted) if
    /// others can change the directory, an ancestor or a file; [`Record`](ErrorKind::Record) for a manifest that is
    /// damaged or forged, and for a file of another size.
    pub fn open(dir: impl AsRef<Path>) -> VmRuntimeResult<Self> {
        Ok(Self::load(dir.as_ref())?)
    }

    pub(super) fn load(dir: &Path) -> Result<Self> {
        let operation = "open the snapshot";
        let dir = TrustedDir::open(dir).map_err(|error| Error::files(operation, error))?;
        let snapshot = Self { manifest: Manifest::read(dir.dir())?, dir };
        snapshot.each_file(|_, _| Ok(()))?;
        Ok(snapshot)
    }

    /// Makes the handle of a snapshot that was just published.
    pub(super) fn published(dir: TrustedDir, manifest: Manifest) -> Self {
        Self { dir, manifest }
    }

    /// Returns the snapshot's directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Returns the id of the VM that the snapshot was taken of.
    #[must_use]
    pub fn vm_id(&self) -> &str {
        self.manifest.spec.vm_id()
    }

    /// Returns the memory that the snapshot contains.
    #[must_use]
    pub fn kind(&self) -> SnapshotKind {
        self.manifest.kind
    }

    /// Returns the release that the VM's Firecracker reported.
    #[must_use]
    pub fn firecracker(&self) -> JailerVersion {
        self.manifest.firecracker
    }

    /// Returns the CPU of the host that the snapshot was taken on.
    #[must_use]
    pub fn cpu(&self) -> &Cpu {
        &self.manifest.cpu
    }

    /// Returns the kernel's release of the host that the snapshot was taken on.
    #[must_use]
    pub fn host_kernel(&self) -> &str {
        &self.manifest.kernel
    }

    /// Returns the files, without the manifest.
    #[must_use]
    pub fn files(&self) -> &[SnapshotFile] {
        &self.manifest.files
    }

    /// Compares the content of each file with the SHA-256 in the manifest.
    ///
    /// # Errors
    /// [`Record`](ErrorKind::Record) names a file with another content; [`Unsupported`](ErrorKind::Unsupported) if the
    /// snapshot was taken without [`checksums`](crate::SnapshotOptions::checksums).
    pub fn verify(&self) -> VmRuntimeResult<()> {
        Ok(self.compare_checksums()?)
    }

    pub(super) fn compare_checksums(&self) -> Result<()> {
        let operation = "verify the snapshot";
        self.each_file(|entry, file| {
            let Some(expected) = &entry.sha256 else {
                return Err(Error::new(ErrorKind::Unsupported, operation)
                    .path(file.path())
                    .because("its manifest has no SHA-256 of the file")
                    .hinted("Take the snapshot with `SnapshotOptions::checksums`."));
            };
            let found = digest::sha256(file)?;
            if found == *expected {
                return Ok(());
            }
            Err(Error::new(ErrorKind::Record, operation)
                .path(file.path())
                .because(format!("its SHA-256 is {found}, the manifest has {expected}")))
        })
    }

    /// Removes the snapshot (`renameat2(2)`, `unlinkat(2)`). VMs that were restored from it keep the memory file in their
    /// jails.
    ///
    /// # Errors
    /// Those of the kernel. What could not be removed, the next snapshot in the same directory sweeps.
    ///
    /// # Privileges
    /// Root.
    pub fn remove(self) -> VmRuntimeResult<()> {
        let operation = "remove the snapshot";
        let path = self.dir.path();
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(Error::invalid(operation, "it has no name").path(path).into());
        };
        let removed = TrustedDir::open(parent).and_then(|parent| {
            jail_fs::remove_tree(&parent, &Name::try_from(name)?, Some(self.dir.id()))
        });
        removed.map_err(|error| Error::files(operation, error))?;
        Ok(())
    }

    pub(super) fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// Opens each file, checked, and calls `look`.
    fn each_file(
        &self,
        mut look: impl FnMut(&SnapshotFile, &Artifact) -> Result<()>,
    ) -> Result<()> {
        let operation = "open the snapshot";
        let drives = Name::try_from(DRIVES).and_then(|name| self.dir.child(&name));
        let drives = drives.map_err(|error| Error::files(operation, error))?;
        for entry in &self.manifest.files {
            let file = open_file(self.dir.dir(), drives.dir(), &entry.path)
                .map_err(|error| Error::files(operation, error))?;
            if !file.is_protected() {
                return Err(Error::new(ErrorKind::Untrusted, operation)
                    .path(file.path())
                    .because("others can write to the file")
                    .hinted("A snapshot's files belong to root and are writable by nobody else."));
            }
            let size = file.stamp().size;
            if size != entry.size {
                return Err(Error::new(ErrorKind::Record, operation)
                    .path(file.path())
                    .because(format!("it has {size} bytes, the manifest has {}", entry.size)));
            }
            look(entry, &file)?;
        }
        Ok(())
    }
}

fn open_file(dir: &Dir, drives: &Dir, path: &str) -> jail_fs::Result<Artifact> {
    match path.strip_prefix(DRIVES).and_then(|rest| rest.strip_prefix('/')) {
        Some(name) => Artifact::open_in(drives, &Name::try_from(name)?),
        None => Artifact::open_in(dir, &Name::try_from(path)?),
    }
}

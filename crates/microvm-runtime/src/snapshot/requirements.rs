//! The requirements of a restore, checked before anything is touched.

use jail_cmd::JailerVersion;

use super::cpu::Cpu;
use super::manifest::{devices, is_file};
use super::open::Snapshot;
use super::options::SnapshotKind;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::JailSpec;
use crate::spec::machine::require;
use crate::spec::restore::Restore;

const OPERATION: &str = "restore the snapshot";

/// Checks the snapshot, the CPU and the release of the VM's Firecracker.
///
/// # Errors
/// [`Unsupported`](ErrorKind::Unsupported) for another CPU or Firecracker, a field that the release lacks, and a
/// differential snapshot; [`InvalidInput`](ErrorKind::InvalidInput) for a clone without
/// [`as_clone`](Restore::as_clone) and for a missing block device; else as [`Snapshot::open`].
pub(crate) fn check(spec: &JailSpec, restore: &Restore, release: JailerVersion) -> Result<()> {
    restore.fields().try_for_each(|field| require(field, release))?;
    let snapshot = Snapshot::load(&restore.snapshot)?;
    let manifest = snapshot.manifest();
    let refuse = |kind, because: String, hint: &str| {
        Err(Error::new(kind, OPERATION).path(snapshot.path()).because(because).hinted(hint))
    };
    if manifest.kind != SnapshotKind::Full {
        return refuse(
            ErrorKind::Unsupported,
            "it contains the pages that were written since another snapshot, and no more"
                .to_owned(),
            "Merge it onto its full snapshot with Firecracker's `snapshot-editor`.",
        );
    }
    if manifest.firecracker != release && !restore.any_release {
        return refuse(
            ErrorKind::Unsupported,
            format!("Firecracker {} took it, the exec file is {release}", manifest.firecracker),
            "Name the Firecracker that took the snapshot as the exec file, or allow another with `Restore::any_release`.",
        );
    }
    let cpu = Cpu::of_this_host()?;
    if manifest.cpu != cpu && !restore.any_cpu {
        return refuse(
            ErrorKind::Unsupported,
            format!("it was taken on {}, this host has {cpu}", manifest.cpu),
            "Restore on the same CPU model, or allow another with `Restore::any_cpu`.",
        );
    }
    if spec.vm_id != snapshot.vm_id() && !restore.is_clone {
        return refuse(
            ErrorKind::InvalidInput,
            format!(
                "it is of the VM {:?}, and {:?} would be a clone",
                snapshot.vm_id(),
                spec.vm_id
            ),
            "Ask for a clone with `Restore::as_clone`, after reading what clones share.",
        );
    }
    if !spec.api {
        return refuse(
            ErrorKind::InvalidInput,
            "a snapshot is loaded over the API".to_owned(),
            "Leave `no_api` out of the spec.",
        );
    }
    for (name, kind) in devices(&manifest.spec).filter(|(_, kind)| !is_file(*kind)) {
        if !devices(spec).any(|device| device == (name, kind)) {
            return refuse(
                ErrorKind::InvalidInput,
                format!("its drive {name:?} is a block device, and the spec names none"),
                "Add the device to the spec, under the same name.",
            );
        }
    }
    if restore.checksums {
        snapshot.compare_checksums()?;
    }
    Ok(())
}

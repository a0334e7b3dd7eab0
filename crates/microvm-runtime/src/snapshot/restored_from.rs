//! The spec of a restored VM.

use std::path::PathBuf;

use super::manifest::{DRIVES, is_file};
use super::open::Snapshot;
use crate::spec::JailSpec;
use crate::spec::drive::Drive;
use crate::spec::firecracker::FirecrackerOptions;
use crate::spec::pmem::Pmem;
use crate::spec::restore::Restore;

impl JailSpec {
    /// A VM called `vm_id` that runs `exec_file` and goes on where the snapshot's VM was.
    ///
    /// Machine and devices are the snapshot's, under the same names in the jail. Drives are private copies of the
    /// snapshot's, persistent drives too; shared drives stay shared. All else is a new VM's and set on the result as on any
    /// spec: limits, user, network namespace, console. The snapshot's kernel, initial ramdisk and limits are not taken over,
    /// nor any path of the host.
    ///
    /// A block device is not part of a snapshot: name the device again, with
    /// `drive(Drive::shared_block_device(name, path))` under the name it had.
    #[must_use]
    pub fn restored_from(
        snapshot: &Snapshot,
        vm_id: impl Into<String>,
        exec_file: impl Into<PathBuf>,
        options: Restore,
    ) -> Self {
        let taken = &snapshot.manifest().spec;
        let source = |name: &str| snapshot.path().join(DRIVES).join(name);
        let drives = taken.drives.iter().filter(|drive| is_file(drive.kind()));
        let drives = drives.map(|drive| drive.restored_from(source(drive.name_in_jail())));
        let pmem = taken.pmem.iter().filter(|device| is_file(device.kind()));
        let pmem = pmem.map(|device| device.restored_from(source(device.name())));
        let mut boot = taken.boot.clone();
        for (interface, tap) in &options.taps {
            boot = boot.map(|boot| boot.with_tap(interface, tap));
        }
        let track_dirty_pages = boot.as_ref().is_some_and(|boot| boot.tracks_dirty_pages());
        let snapshot = snapshot.path().to_owned();
        Self {
            drives: drives.collect::<Vec<Drive>>(),
            pmem: pmem.collect::<Vec<Pmem>>(),
            boot,
            firecracker: FirecrackerOptions {
                enable_pci: taken.firecracker.enable_pci,
                mmds_size_limit: taken.firecracker.mmds_size_limit,
                ..FirecrackerOptions::default()
            },
            restore: Some(Restore { snapshot, track_dirty_pages, ..options }),
            ..Self::new(vm_id, exec_file)
        }
    }
}

//! The contents of a jail: artifacts, small files, and the configuration of the machine.

use std::path::PathBuf;

use jail_cmd::{ArtifactName, Layout, in_jail};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::spec::JailSpec;
use crate::spec::drive::{Drive, DriveKind};
use crate::spec::machine::{Boot, Document, DriveConfig, MachineFiles};
use crate::spec::pmem::Pmem;

/// A file of the host that the jail will have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedArtifact {
    /// The artifact's name in the jail.
    pub name: ArtifactName,
    /// The source on the host.
    pub source: PathBuf,
    /// The kind of sharing.
    pub kind: DriveKind,
}

/// A small file that this crate writes into the jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct PlannedFile {
    /// The file's name in the jail.
    pub name: String,
    /// The file's content.
    pub content: String,
    /// True if the VMM may write to the file.
    pub writable: bool,
}

pub(super) fn artifacts(spec: &JailSpec, layout: &Layout) -> Result<Vec<PlannedArtifact>> {
    let mut boot_files =
        vec![(in_jail::KERNEL, spec.kernel.clone()), (in_jail::INITRD, spec.initrd.clone())];
    if let Some(restore) = &spec.restore {
        boot_files.push((in_jail::SNAPSHOT_MEMORY, Some(restore.memory())));
        boot_files.push((in_jail::SNAPSHOT_STATE, Some(restore.vmstate())));
    }
    let mut planned = Vec::new();
    for (name, source) in boot_files {
        if let Some(source) = source {
            let name = ArtifactName::for_boot(name)?;
            planned.push(PlannedArtifact { name, source, kind: DriveKind::ReadOnly });
        }
    }
    let drives = spec.drives.iter().map(|it| (it.name_in_jail(), it.source(), it.kind()));
    let pmem = spec.pmem.iter().map(|it| (it.name(), it.source(), it.kind()));
    for (name, source, kind) in drives.chain(pmem) {
        let name = ArtifactName::new(name, layout.exec_name())?;
        if planned.iter().any(|other: &PlannedArtifact| other.name == name) {
            return Err(Error::invalid("plan the drives", format!("two are called \"{name}\""))
                .hinted("Give each drive a name of its own."));
        }
        planned.push(PlannedArtifact { name, source: source.to_owned(), kind });
    }
    for artifact in &planned {
        let refused = |because: &str| {
            Error::invalid(format!("find the source of {}", artifact.name), because)
                .path(&artifact.source)
        };
        if !artifact.source.is_absolute() {
            return Err(refused("it is not absolute").hinted("Give an absolute path."));
        }
        if artifact.source.to_str().is_none() {
            return Err(refused("it is not UTF-8")
                .hinted("Rename the file: its path is recorded as JSON, which is UTF-8."));
        }
    }
    Ok(planned)
}

/// Returns the configuration of the machine to boot.
pub(super) fn document(spec: &JailSpec) -> Result<Option<Document>> {
    // A restored machine is in the snapshot.
    let Some(boot) = spec.boot.as_ref().filter(|_| spec.restore.is_none()) else {
        if spec.pmem.is_empty() || spec.restore.is_some() {
            return Ok(None);
        }
        return Err(Error::invalid("plan the pmem devices", "there is no machine to boot")
            .hinted("Give the spec a `boot`, or configure the devices over the API."));
    };
    if spec.kernel.is_none() {
        return Err(Error::invalid("plan the boot", "there is no kernel")
            .hinted("Give the spec a `kernel`."));
    }
    let files = MachineFiles {
        kernel: format!("/{}", in_jail::KERNEL),
        initrd: spec.initrd.as_ref().map(|_| format!("/{}", in_jail::INITRD)),
        drives: drive_configs(spec)?,
        pmem: spec.pmem.iter().map(Pmem::config).collect(),
        mmds_limit: spec.firecracker.mmds_limit(),
    };
    check_file_size(spec, boot)?;
    Document::new(boot, files).map(Some)
}

/// Refuses a limit on files below the guest's memory if a backend shares the memory, which then is a file
/// (`memfd_create(2)`): Firecracker would be killed by SIGXFSZ.
fn check_file_size(spec: &JailSpec, boot: &Boot) -> Result<()> {
    let needed = boot.largest_memory_mib().saturating_mul(1 << 20);
    let is_shared = spec.drives.iter().any(|drive| drive.kind() == DriveKind::VhostUser);
    match spec.file_size_limit().filter(|limit| is_shared && *limit < needed) {
        None => Ok(()),
        Some(limit) => Err(Error::invalid(
            "plan the vhost-user drives",
            format!("the limit `fsize` of {limit} bytes is below the guest's memory, which the backend shares as a file"),
        )
        .hinted(format!("Raise `ResourceLimit::FileSize` to {needed} bytes or more."))),
    }
}

pub(super) fn files(spec: &JailSpec, document: Option<&Document>) -> Vec<PlannedFile> {
    let mut files = Vec::new();
    let mut add = |name: &str, content: String, writable: bool| {
        files.push(PlannedFile { name: name.to_owned(), content, writable });
    };
    if spec.firecracker.metrics {
        add(in_jail::METRICS, String::new(), true);
    }
    let (Some(boot), Some(document)) = (&spec.boot, document) else { return files };
    if boot.serial_file() {
        add(in_jail::SERIAL, String::new(), true);
    }
    if let Some(data) = boot.metadata() {
        add(in_jail::METADATA, data.to_string(), false);
    }
    if boot.needs_requests() {
        return files;
    }
    if let Some(template) = document.cpu_config() {
        add(in_jail::CPU_CONFIG, template, false);
    }
    add(in_jail::VM_CONFIG, document.file(), false);
    files
}

/// Returns the drives' configuration. The first drive is the root device, unless another device is.
fn drive_configs(spec: &JailSpec) -> Result<Vec<DriveConfig>> {
    let marked =
        spec.drives.iter().any(Drive::is_root_device) || spec.pmem.iter().any(Pmem::is_root_device);
    let is_root = |index, drive: &Drive| drive.is_root_device() || (!marked && index == 0);
    let drives = spec.drives.iter().enumerate();
    drives.map(|(index, drive)| drive.config(is_root(index, drive))).collect()
}

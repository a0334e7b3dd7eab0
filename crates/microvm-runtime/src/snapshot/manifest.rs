//! The manifest of a snapshot, `snapshot.json`: bounded and checked before anything in it is used.

use std::collections::BTreeSet;

use jail_cmd::{ArtifactName, JailerVersion, in_jail};
use jail_fs::{Dir, Name, Owner, StagingDir};
use serde::{Deserialize, Serialize};

use super::cpu::Cpu;
use super::options::SnapshotKind;
use crate::error::{Error, ErrorKind, Result};
use crate::spec::JailSpec;
use crate::spec::drive::DriveKind;
use crate::spec::restore::{MEMORY, VMSTATE};
use crate::vmm::read_proc_file;

/// The manifest's name in the snapshot's directory.
pub(super) const MANIFEST: &str = "snapshot.json";

/// The directory of the drives.
pub(super) const DRIVES: &str = "drives";

/// The largest manifest, in bytes: a jail's spec has 1 MiB at most.
const MAX_BYTES: usize = 2 << 20;

/// The version of the manifest's format.
const FORMAT: u32 = 1;

/// A file of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct SnapshotFile {
    /// The path in the snapshot's directory: `memory`, `vmstate`, or `drives/<name in the jail>`.
    pub path: String,
    /// The size in bytes.
    pub size: u64,
    /// The SHA-256 of the content, in hexadecimal digits, if it was asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sha256: Option<String>,
}

/// The content of `snapshot.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    format: u32,
    pub(crate) kind: SnapshotKind,
    /// The release that the VMM reported.
    pub(crate) firecracker: JailerVersion,
    pub(crate) cpu: Cpu,
    /// The release of the host's kernel (`uname(2)`); for people.
    pub(crate) kernel: String,
    /// The spec of the VM. Only what is inside the jail is used of it: a restore opens no path of the host that a
    /// manifest names.
    pub(crate) spec: JailSpec,
    pub(crate) files: Vec<SnapshotFile>,
}

impl Manifest {
    pub(super) fn new(
        kind: SnapshotKind,
        firecracker: JailerVersion,
        spec: JailSpec,
        files: Vec<SnapshotFile>,
    ) -> Result<Self> {
        // For people, so that a host without the file is no reason to fail.
        let kernel = read_proc_file("/proc/sys/kernel/osrelease").unwrap_or_default();
        let kernel = String::from_utf8_lossy(&kernel).trim().to_owned();
        let cpu = Cpu::of_this_host()?;
        Ok(Self { format: FORMAT, kind, firecracker, cpu, kernel, spec, files })
    }

    /// Writes the manifest into the staged snapshot.
    pub(super) fn write(&self, dir: StagingDir<'_>) -> Result<()> {
        let operation = "write the snapshot's manifest";
        let failed = || Error::new(ErrorKind::Record, operation).path(MANIFEST);
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed().source_of(error))?;
        if text.len() > MAX_BYTES {
            let because = format!("it has {} bytes, of at most {MAX_BYTES}", text.len());
            return Err(failed().because(because));
        }
        jail_fs::write(dir, &Name::try_from(MANIFEST)?, &text, Owner::caller(), 0o600)
            .map_err(|error| Error::files(operation, error))?;
        Ok(())
    }

    /// Reads the manifest of the snapshot in `dir`, and checks the names in it.
    pub(super) fn read(dir: &Dir) -> Result<Self> {
        let operation = "read the snapshot's manifest";
        let bytes = jail_fs::read_small(dir, MANIFEST, MAX_BYTES as u64)
            .map_err(|error| Error::files(operation, error))?;
        let failed = || Error::new(ErrorKind::Record, operation).path(MANIFEST);
        let manifest: Self =
            serde_json::from_slice(&bytes).map_err(|error| failed().source_of(error))?;
        if manifest.format != FORMAT {
            let because = format!("its format is {}, this release reads {FORMAT}", manifest.format);
            return Err(failed().because(because));
        }
        let expected = files_of(&manifest.spec).map_err(|error| failed().source_of(error))?;
        let listed: Vec<_> = manifest.files.iter().map(|file| file.path.clone()).collect();
        if listed.len() != expected.len()
            || listed.iter().cloned().collect::<BTreeSet<_>>() != expected
        {
            let because = format!(
                "it lists {} files, of which the spec's VM has {}: {}",
                listed.len(),
                expected.len(),
                expected.into_iter().collect::<Vec<_>>().join(", ")
            );
            return Err(failed().because(because));
        }
        Ok(manifest)
    }
}

/// Returns the files of a snapshot of this VM, each name checked.
fn files_of(spec: &JailSpec) -> Result<BTreeSet<String>> {
    let mut files = BTreeSet::from([MEMORY.to_owned(), VMSTATE.to_owned()]);
    for (name, kind) in devices(spec) {
        if is_file(kind) {
            files.insert(drive_path(name)?);
        }
    }
    Ok(files)
}

/// Returns name in the jail and kind of each drive and pmem device.
pub(super) fn devices(spec: &JailSpec) -> impl Iterator<Item = (&str, DriveKind)> {
    let drives = spec.drives.iter().map(|drive| (drive.name_in_jail(), drive.kind()));
    drives.chain(spec.pmem.iter().map(|device| (device.name(), device.kind())))
}

/// Returns true if a snapshot contains the drive's content.
pub(super) fn is_file(kind: DriveKind) -> bool {
    matches!(kind, DriveKind::ReadOnly | DriveKind::Private | DriveKind::Persistent)
}

/// Returns the path of a drive in the snapshot's directory.
pub(super) fn drive_path(name: &str) -> Result<String> {
    // One component, and no name that means something in a jail.
    let name: ArtifactName = name.to_owned().try_into()?;
    if in_jail::BOOT_FILES.contains(&name.as_str()) {
        return Err(Error::invalid(
            "name a drive",
            format!("{:?} is a boot file's name", name.as_str()),
        ));
    }
    Ok(format!("{DRIVES}/{}", name.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::drive::Drive;
    use crate::spec::jail_spec::tests::{assert_round_trip, unlike_default};

    fn file(path: &str) -> SnapshotFile {
        SnapshotFile { path: path.to_owned(), size: 1, sha256: Some("00".repeat(32)) }
    }

    fn manifest(files: &[&str]) -> Manifest {
        let files = files.iter().map(|path| file(path)).collect();
        let spec = JailSpec::new("vm", "/firecracker")
            .drive(Drive::private("root", "/r"))
            .drive(Drive::block_device("disk", "/dev/sda"));
        Manifest::new(SnapshotKind::Diff, JailerVersion::NEWEST, spec, files).unwrap()
    }

    #[test]
    fn a_manifest_survives_its_text() {
        let manifest = Manifest { spec: unlike_default(), ..manifest(&["memory"]) };
        assert_round_trip(&manifest, None);
    }

    #[expect(clippy::disallowed_methods, reason = "the test's own files")]
    fn read(text: &str) -> Result<Manifest> {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(MANIFEST), text).unwrap();
        Manifest::read(&Dir::from_std_file(std::fs::File::open(dir.path()).unwrap()))
    }

    #[test]
    fn forged_manifests_are_refused() {
        let good = manifest(&["memory", "vmstate", "drives/root"]);
        let text = |manifest: &Manifest| serde_json::to_string(manifest).unwrap();
        assert_eq!(read(&text(&good)).unwrap(), good);
        for files in [
            vec!["memory", "vmstate"],
            vec!["memory", "vmstate", "drives/root", "drives/root"],
            vec!["memory", "vmstate", "drives/root", "../etc/shadow"],
            vec!["memory", "vmstate", "drives/disk"],
            vec!["memory", "memory", "vmstate"],
        ] {
            assert_eq!(read(&text(&manifest(&files))).unwrap_err().kind(), ErrorKind::Record);
        }
        for name in ["../x", "a/b", "..", "", "dev", "vmlinux", "snapshot.memory"] {
            let drive = Drive::private("root", "/r").file_name(name);
            let spec = JailSpec::new("vm", "/firecracker").drive(drive);
            let forged = Manifest { spec, ..good.clone() };
            assert!(read(&text(&forged)).is_err(), "{name}");
        }
        let (whole, none) = (text(&good), String::new());
        let strange = whole.replacen('{', "{\"x\":1,", 1);
        for bad in [
            &none,
            &whole[..whole.len() / 2],
            "[]",
            &strange,
            &whole.replace("\"format\":1", "\"format\":2"),
        ] {
            assert_eq!(read(bad).unwrap_err().kind(), ErrorKind::Record, "{bad}");
        }
        let huge = format!("{whole}{}", " ".repeat(MAX_BYTES));
        assert!(read(&huge).unwrap_err().contains("are allowed"));
    }
}

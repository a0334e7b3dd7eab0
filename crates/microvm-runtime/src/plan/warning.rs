//! The warnings of a plan: [`Warning`].

use std::fmt;
use std::path::Path;

use jail_cmd::JailerVersion;

use crate::spec::drive::DriveKind;
use crate::spec::{JailSpec, Network};
use crate::sys::file::FileStat;

/// Memory of Firecracker itself, in bytes, without the guest's.
const VMM_BYTES: u64 = 10 << 20;

/// Bytes of the guest's memory for one byte of page tables, of the process and of KVM.
const PAGE_TABLES: u64 = 256;

/// A property of a plan that does not keep the VM from starting, and may disappoint later. Printed, one sentence.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Warning {
    /// The jailer is newer than [`JailerVersion::NEWEST`], and is treated alike.
    NewerJailer(JailerVersion),
    /// Firecracker is newer than [`JailerVersion::NEWEST`], and is treated alike.
    NewerFirecracker(JailerVersion),
    /// The memory limit is below the need of guest and VMM: the VMM is killed once the guest has used its memory.
    MemoryBelowGuest {
        /// The limit, in bytes.
        limit: u64,
        /// The memory of the guest and the VMM, in bytes; the VMM's is an estimate.
        needed: u64,
    },
    /// The CPU limit is below one CPU, for the jailer too: a launch takes longer.
    LessThanOneCpu {
        /// The limit, in CPUs.
        cpus: f64,
    },
    /// The VM has a tap device that the launch does not create, and no network namespace for it.
    TapWithoutNamespace {
        /// The tap device.
        tap: String,
    },
    /// A drive that the guest may write is larger than the limit on files: a write beyond the limit ends the VMM.
    FileSizeBelowDrive {
        /// The drive.
        name: String,
        /// The limit `fsize`, in bytes.
        limit: u64,
        /// The size of the file, in bytes.
        size: u64,
    },
}

impl fmt::Display for Warning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let newest = JailerVersion::NEWEST;
        let newer = |f: &mut fmt::Formatter<'_>, program, release| {
            write!(
                f,
                "{program} {release} is newer than {newest}, the newest release known here, and is treated alike"
            )
        };
        match self {
            Self::NewerJailer(release) => newer(f, "jailer", release),
            Self::NewerFirecracker(release) => newer(f, "Firecracker", release),
            Self::MemoryBelowGuest { limit, needed } => write!(
                f,
                "the memory limit of {} MiB is below the {} MiB that the guest and Firecracker may use",
                limit >> 20,
                needed >> 20
            ),
            Self::LessThanOneCpu { cpus } => {
                write!(f, "the limit of {cpus} CPUs holds for the jailer too, and slows the launch")
            }
            Self::TapWithoutNamespace { tap } => {
                write!(
                    f,
                    "the tap device {tap:?} is created by nobody, and in no network namespace that the spec names"
                )
            }
            Self::FileSizeBelowDrive { name, limit, size } => write!(
                f,
                "the guest may write {name:?} of {size} bytes, and a write beyond the limit `fsize` of {limit} bytes ends the VM"
            ),
        }
    }
}

/// Returns the warnings of a plan with these releases.
pub(super) fn of(
    jailer: Option<JailerVersion>,
    firecracker: Option<JailerVersion>,
    spec: &JailSpec,
) -> Vec<Warning> {
    let is_newer = |release: &JailerVersion| *release > JailerVersion::NEWEST;
    let jailer = jailer.filter(is_newer).map(Warning::NewerJailer);
    let firecracker = firecracker.filter(is_newer).map(Warning::NewerFirecracker);
    jailer.into_iter().chain(firecracker).chain(of_spec(spec)).collect()
}

fn of_spec(spec: &JailSpec) -> impl Iterator<Item = Warning> {
    memory(spec).into_iter().chain(cpu(spec)).chain(taps(spec)).chain(files(spec))
}

fn memory(spec: &JailSpec) -> Option<Warning> {
    let limit = spec.limits.memory()?.as_bytes();
    let guest = spec.boot.as_ref()?.most_memory_mib().saturating_mul(1 << 20);
    // Huge pages are not part of the group's memory.
    let charged = if spec.boot.as_ref()?.has_huge_pages() { 0 } else { guest };
    let needed = charged.saturating_add(guest / PAGE_TABLES).saturating_add(VMM_BYTES);
    (limit < needed).then_some(Warning::MemoryBelowGuest { limit, needed })
}

fn cpu(spec: &JailSpec) -> Option<Warning> {
    let cpus = spec.limits.cpu()?;
    (cpus < 1.0).then_some(Warning::LessThanOneCpu { cpus })
}

fn taps(spec: &JailSpec) -> Vec<Warning> {
    if matches!(spec.network, Network::Namespace(_)) {
        return Vec::new();
    }
    let taps = spec.boot.iter().flat_map(|boot| boot.existing_taps());
    taps.map(|tap| Warning::TapWithoutNamespace { tap: tap.to_owned() }).collect()
}

fn files(spec: &JailSpec) -> Vec<Warning> {
    let Some(limit) = spec.file_size_limit() else { return Vec::new() };
    let drives = spec.drives.iter().map(|drive| (drive.name(), drive.source(), drive.kind()));
    // A pmem device is mapped, and stores to a mapping meet no limit.
    let is_written = |kind| matches!(kind, DriveKind::Private | DriveKind::Persistent);
    let mut warnings = Vec::new();
    for (name, source, kind) in drives {
        if let Some(size) = size(source).filter(|size| *size > limit && is_written(kind)) {
            let name = name.to_owned();
            warnings.push(Warning::FileSizeBelowDrive { name, limit, size });
        }
    }
    warnings
}

/// Returns the size of a file of the host. A missing file is an error of the next step.
fn size(path: &Path) -> Option<u64> {
    FileStat::of_unfollowed(path).ok().map(|found| found.size())
}

#[cfg(test)]
mod tests {
    use jail_cgroup::{ByteSize, Limits};
    use jail_cmd::ResourceLimit;

    use super::*;
    use crate::spec::drive::Drive;
    use crate::spec::machine::{Boot, HugePages, MemoryHotplug, NetworkInterface};
    use crate::spec::pmem::Pmem;

    fn warnings(spec: &JailSpec) -> Vec<String> {
        of_spec(spec).map(|warning| warning.to_string()).collect()
    }

    fn spec() -> JailSpec {
        JailSpec::new("vm", "/firecracker").boot(Boot::new().memory_mib(512))
    }

    #[test]
    fn memory_below_the_guest_is_noted() {
        let limited = |mib| spec().limits(Limits::new().memory_max(ByteSize::mib(mib)));
        let needed = (512 << 20) + (2 << 20) + VMM_BYTES;
        assert_eq!(
            of_spec(&limited(512)).collect::<Vec<_>>(),
            [Warning::MemoryBelowGuest { limit: 512 << 20, needed }]
        );
        assert_eq!(warnings(&limited(523)).len(), 1);
        assert!(warnings(&limited(524)).is_empty());
        assert!(warnings(&spec()).is_empty());
        let plugged = Boot::new().memory_mib(256).memory_hotplug(MemoryHotplug::new(256));
        assert_eq!(warnings(&limited(500).boot(plugged)).len(), 1);
        let huge = Boot::new().memory_mib(512).huge_pages(HugePages::Mib2);
        assert!(warnings(&limited(16).boot(huge)).is_empty());
        let text = warnings(&limited(64)).concat();
        assert!(text.contains("64 MiB") && text.contains("524 MiB"), "{text}");
    }

    #[test]
    fn less_than_one_cpu_is_noted() {
        let limited = |cpus| spec().limits(Limits::new().cpus(cpus));
        assert_eq!(
            of_spec(&limited(0.5)).collect::<Vec<_>>(),
            [Warning::LessThanOneCpu { cpus: 0.5 }]
        );
        assert!(warnings(&limited(1.0)).is_empty());
    }

    #[test]
    fn taps_in_no_namespace_are_noted() {
        let boot = Boot::new().network(NetworkInterface::new("eth0", "tap7"));
        let spec = spec().boot(boot);
        assert_eq!(
            of_spec(&spec).collect::<Vec<_>>(),
            [Warning::TapWithoutNamespace { tap: "tap7".to_owned() }]
        );
        assert!(warnings(&spec.network(Network::Namespace("/run/netns/a".into()))).is_empty());
    }

    #[test]
    fn files_beyond_the_limit_are_noted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1000).unwrap();
        let path = file.path();
        let limited = |bytes| spec().resource_limit(ResourceLimit::FileSize(bytes));
        let with = |bytes| {
            limited(bytes)
                .drive(Drive::private("own", path))
                .drive(Drive::read_only("shared", path))
                .pmem(Pmem::persistent("fast", path))
        };
        let beyond = |name: &str| Warning::FileSizeBelowDrive {
            name: name.to_owned(),
            limit: 999,
            size: 1000,
        };
        assert_eq!(of_spec(&with(999)).collect::<Vec<_>>(), [beyond("own")]);
        assert!(warnings(&with(1000)).is_empty());
        assert!(warnings(&limited(10).drive(Drive::private("own", "/none"))).is_empty());
    }
}

//! The restore of a snapshot, as part of a spec: [`Restore`].

use std::path::{Path, PathBuf};

use jail_cmd::in_jail;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The name of the guest's memory in a snapshot's directory.
pub(crate) const MEMORY: &str = "memory";

/// The name of the state of devices and vCPUs in a snapshot's directory.
pub(crate) const VMSTATE: &str = "vmstate";

/// Options of a restore, for [`JailSpec::restored_from`](crate::JailSpec::restored_from).
///
/// ```
/// use microvm_runtime::Restore;
///
/// // One of many VMs of a snapshot, with a tap device of its own, paused until `Vm::resume`.
/// let options = Restore::new().as_clone().tap("eth0", "tap7").paused();
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Restore {
    /// The snapshot's directory; set by `restored_from`.
    pub(crate) snapshot: PathBuf,
    pub(crate) is_clone: bool,
    pub(crate) paused: bool,
    pub(crate) taps: Vec<(String, String)>,
    pub(crate) vsock: bool,
    pub(crate) clock_realtime: bool,
    pub(crate) track_dirty_pages: bool,
    pub(crate) any_cpu: bool,
    pub(crate) any_release: bool,
    pub(crate) checksums: bool,
}

impl Restore {
    /// The one VM that takes the place of the snapshot's: under the same id, resumed at once.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Allows another VM id than the snapshot's, and so several VMs of one snapshot.
    ///
    /// All of them begin with the same memory: the same keys, random numbers, process ids, MAC and IP addresses. A guest
    /// with VMGenID (Linux 5.18 on x86_64, 6.10 on ARM) reseeds the kernel's random numbers; nothing else becomes unique by
    /// that. See `docs/snapshots.md`.
    #[must_use]
    pub fn as_clone(mut self) -> Self {
        self.is_clone = true;
        self
    }

    /// Leaves the guest paused until [`Vm::resume`](crate::Vm::resume).
    #[must_use]
    pub fn paused(mut self) -> Self {
        self.paused = true;
        self
    }

    /// Connects the network interface `interface` to the tap device `tap`, instead of the snapshot's. Firecracker 1.12.0.
    #[must_use]
    pub fn tap(mut self, interface: impl Into<String>, tap: impl Into<String>) -> Self {
        self.taps.push((interface.into(), tap.into()));
        self
    }

    /// Makes the vsock device's socket at `/v.sock` in the jail, wherever the snapshot's VM had it: for a VM that was
    /// configured over the API. Firecracker 1.16.0.
    #[must_use]
    pub fn vsock(mut self) -> Self {
        self.vsock = true;
        self
    }

    /// Advances the guest's clock (kvmclock) by the time since the snapshot. Firecracker 1.16.0, x86_64 only.
    #[must_use]
    pub fn clock_realtime(mut self) -> Self {
        self.clock_realtime = true;
        self
    }

    /// Allows another CPU than the snapshot's. A guest may crash on instructions that the CPU lacks.
    #[must_use]
    pub fn any_cpu(mut self) -> Self {
        self.any_cpu = true;
        self
    }

    /// Allows another Firecracker than the snapshot's. Firecracker refuses formats that it does not understand.
    #[must_use]
    pub fn any_release(mut self) -> Self {
        self.any_release = true;
        self
    }

    /// Compares each file with the SHA-256 of the manifest before anything is touched. Reads the whole snapshot.
    #[must_use]
    pub fn checksums(mut self) -> Self {
        self.checksums = true;
        self
    }

    /// Returns the directory of the snapshot.
    #[must_use]
    pub fn snapshot(&self) -> &Path {
        &self.snapshot
    }

    /// Returns the path of the guest's memory.
    pub(crate) fn memory(&self) -> PathBuf {
        self.snapshot.join(MEMORY)
    }

    /// Returns the path of the state of devices and vCPUs.
    pub(crate) fn vmstate(&self) -> PathBuf {
        self.snapshot.join(VMSTATE)
    }

    /// Returns the fields that not every release has, by their names in the table of releases.
    pub(crate) fn fields(&self) -> impl Iterator<Item = &'static str> {
        let fields = [
            (true, "snapshot-load.mem_backend"),
            (!self.taps.is_empty(), "snapshot-load.network_overrides"),
            (self.vsock, "snapshot-load.vsock_override"),
            (self.clock_realtime, "snapshot-load.clock_realtime"),
        ];
        fields.into_iter().filter_map(|(used, field)| used.then_some(field))
    }

    /// Returns the body of `PUT /snapshot/load`. Only fields that differ from Firecracker's defaults are written, because
    /// a release refuses fields that it does not know.
    pub(crate) fn request(&self, resume: bool) -> Value {
        let path = |name: &str| format!("/{name}");
        let mut body = json!({
            "snapshot_path": path(in_jail::SNAPSHOT_STATE),
            "mem_backend": { "backend_type": "File", "backend_path": path(in_jail::SNAPSHOT_MEMORY) },
            "resume_vm": resume,
        });
        if self.track_dirty_pages {
            // The name that every release understands; `track_dirty_pages` is of 1.13.
            body["enable_diff_snapshots"] = true.into();
        }
        if !self.taps.is_empty() {
            let tap = |(interface, tap): &(String, String)| json!({ "iface_id": interface, "host_dev_name": tap });
            body["network_overrides"] = self.taps.iter().map(tap).collect();
        }
        if self.vsock {
            body["vsock_override"] = json!({ "uds_path": path(in_jail::VSOCK) });
        }
        if self.clock_realtime {
            body["clock_realtime"] = true.into();
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_wanted_fields_are_sent() {
        let backend = json!({ "backend_type": "File", "backend_path": "/snapshot.memory" });
        assert_eq!(
            Restore::new().request(true),
            json!({ "snapshot_path": "/snapshot.vmstate", "mem_backend": backend, "resume_vm": true })
        );
        let mut all = Restore::new().tap("eth0", "tap7").vsock().clock_realtime();
        all.track_dirty_pages = true;
        assert_eq!(
            all.request(false),
            json!({
                "snapshot_path": "/snapshot.vmstate", "mem_backend": backend, "resume_vm": false,
                "enable_diff_snapshots": true, "clock_realtime": true,
                "network_overrides": [{ "iface_id": "eth0", "host_dev_name": "tap7" }],
                "vsock_override": { "uds_path": "/v.sock" },
            })
        );
        assert_eq!((Restore::new().fields().count(), all.fields().count()), (1, 4));
    }
}

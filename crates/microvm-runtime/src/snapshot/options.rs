//! Options of taking a snapshot: [`SnapshotOptions`].

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::text_form::text_form;

/// The memory that a snapshot contains.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SnapshotKind {
    /// All of the guest's memory.
    #[default]
    Full,
    /// The pages that were written since the last snapshot, or since the restore; the rest of the memory file is a hole.
    ///
    /// Merge it onto its full snapshot (Firecracker's `snapshot-editor edit-memory rebase`) before a restore. Without
    /// [`Boot::track_dirty_pages`](crate::Boot::track_dirty_pages) releases before 1.13 refuse it.
    Diff,
}

text_form!(SnapshotKind, "kind of snapshot", { Full => "full", Diff => "diff" });

/// The state of the VM after a snapshot.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Afterwards {
    /// The guest runs on, unless it was paused before the snapshot.
    #[default]
    Resume,
    /// The guest stays paused until [`Vm::resume`](crate::Vm::resume).
    StayPaused,
    /// The VMM is killed; the guest goes on in the VMs that are restored.
    Stop,
}

text_form!(Afterwards, "state after a snapshot", { Resume => "resume", StayPaused => "stay_paused", Stop => "stop" });

/// Options of [`Vm::snapshot`](crate::Vm::snapshot).
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SnapshotOptions {
    pub(super) kind: SnapshotKind,
    pub(super) afterwards: Afterwards,
    pub(super) checksums: bool,
    pub(super) within: Duration,
}

impl Default for SnapshotOptions {
    fn default() -> Self {
        Self {
            kind: SnapshotKind::default(),
            afterwards: Afterwards::default(),
            checksums: false,
            within: Duration::from_secs(300),
        }
    }
}

impl SnapshotOptions {
    /// A full snapshot, after which the guest runs on.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the memory that the snapshot contains.
    #[must_use]
    pub fn kind(mut self, kind: SnapshotKind) -> Self {
        self.kind = kind;
        self
    }

    /// Sets the state of the VM after the snapshot.
    #[must_use]
    pub fn afterwards(mut self, afterwards: Afterwards) -> Self {
        self.afterwards = afterwards;
        self
    }

    /// Records the SHA-256 of each file, for [`Snapshot::verify`](crate::Snapshot::verify). Reads the whole snapshot
    /// once more, while the guest runs.
    #[must_use]
    pub fn checksums(mut self) -> Self {
        self.checksums = true;
        self
    }

    /// Sets the time that Firecracker has for all requests of the snapshot (300 s): it writes the memory to the disk.
    #[must_use]
    pub fn within(mut self, timeout: Duration) -> Self {
        self.within = timeout;
        self
    }
}

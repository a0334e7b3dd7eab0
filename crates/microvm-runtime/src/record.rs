//! `jail.json`: what is known of a jail, kept beside it where its VM cannot reach.

use std::path::Path;

use jail_cgroup::LeafId;
use jail_cmd::{ExecName, JailId};
use jail_fs::{CopyOptions, Dir, InodeId, Name, Owner};
use serde::{Deserialize, Serialize};

use crate::error::{ErrorKind, Failure, Result};
use crate::plan::Plan;
use crate::process::ProcessStamp;
use crate::spec::JailSpec;

/// The file's name in the jail's directory, beside `root/`.
pub(crate) const FILE: &str = "jail.json";

/// Largest record that is read, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// What is known of a jail.
///
/// The file belongs to root, in a directory no one else can enter. It says what was done; what *is* is asked of the
/// kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) vm_id: String,
    pub(crate) jail_id: JailId,
    pub(crate) exec_name: ExecName,
    pub(crate) spec: JailSpec,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) uid_leased: bool,
    /// The inode of `root/`.
    pub(crate) root: InodeId,
    pub(crate) receipts: Vec<jail_fs::Receipt>,
    pub(crate) leaf: Option<LeafId>,
    pub(crate) progress: Progress,
}

/// How far a jail got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Progress {
    /// Staged; the jailer was not started by us.
    Prepared,
    /// The jailer was, or was about to be, started.
    Starting,
    /// The VMM runs, or ran, as this process.
    Started(ProcessStamp),
}

impl Record {
    const FORMAT: u32 = 1;

    pub(crate) fn new(
        plan: &Plan,
        (uid, gid): (u32, u32),
        uid_leased: bool,
        root: InodeId,
        receipts: Vec<jail_fs::Receipt>,
    ) -> Self {
        Self {
            format: Self::FORMAT,
            vm_id: plan.spec.vm_id.clone(),
            jail_id: plan.jail_id.clone(),
            exec_name: plan.layout.exec_name().clone(),
            spec: plan.spec.clone(),
            uid,
            gid,
            uid_leased,
            root,
            receipts,
            leaf: plan.cgroup.leaf.as_ref().map(jail_cgroup::LeafPlan::id),
            progress: Progress::Prepared,
        }
    }

    /// Reads the record of the jail in `dir`; `None` where there is none.
    pub(crate) fn read(dir: &Dir, at: &Path) -> Result<Option<Self>> {
        let path = at.join(FILE);
        let operation = "read the record";
        let bytes = match jail_fs::read_small(dir, &file_name()?, MAX_BYTES) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return Ok(None),
            // What is there is no record of ours.
            Err(error) if error.kind() == jail_fs::ErrorKind::Untrusted => {
                return Err(Failure::new(ErrorKind::Record, operation).path(path).source_of(error));
            }
            // It may well be one, of a VM that runs.
            Err(error) => return Err(Failure::files(operation, error)),
        };
        let damaged = |failure: Failure| failure.path(&path).hinted("tear the jail down");
        let record: Self = serde_json::from_slice(&bytes).map_err(|error| {
            damaged(Failure::new(ErrorKind::Record, operation).source_of(error))
        })?;
        if record.format != Self::FORMAT {
            let because =
                format!("its format is {}, this release reads {}", record.format, Self::FORMAT);
            return Err(damaged(Failure::new(ErrorKind::Record, operation).because(because)));
        }
        Ok(Some(record))
    }

    /// Replaces the record of the jail in `dir`, whole or not at all.
    pub(crate) fn write(&self, dir: &Dir, at: &Path) -> Result<()> {
        let failed = || Failure::new(ErrorKind::Record, "write the record").path(at.join(FILE));
        let bytes = serde_json::to_vec_pretty(self).map_err(|error| failed().source_of(error))?;
        let options = CopyOptions::new();
        jail_fs::replace(dir, &file_name()?, &bytes, Owner::caller(), 0o600, &options)
            .map_err(|error| failed().source_of(error))?;
        Ok(())
    }
}

fn file_name() -> Result<Name> {
    Ok(Name::try_from(FILE)?)
}

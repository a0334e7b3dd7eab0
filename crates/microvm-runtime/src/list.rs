//! What is on the host: [`Jailer::list`], and [`Jailer::sweep`] of what killed launchers left.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use jail_cmd::JailId;
use serde::Serialize;

use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};
use crate::jail::{self, Alive, Jail};
use crate::jailer::Jailer;
use crate::record::{Progress, Record};
use crate::teardown::{self, Teardown};
use crate::uid;

/// A jail on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Listed {
    /// The jail's id.
    pub jail_id: JailId,
    /// The VM's id, where the record can be read.
    pub vm_id: Option<String>,
    /// The jail's directory on the host.
    pub path: PathBuf,
    /// What the kernel says of it.
    pub state: State,
}

/// What the kernel says of a jail.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum State {
    /// Nothing runs in it.
    Stopped,
    /// Its VM runs as this process.
    Running {
        /// The VMM's pid on the host.
        pid: u32,
    },
    /// Processes run in it that no launcher recorded.
    Unrecorded {
        /// Their pids on the host.
        pids: Vec<u32>,
    },
    /// Its record cannot be read; teardown removes it.
    Damaged,
}

/// What a sweep removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Swept {
    /// Trees that were being staged or removed.
    pub trees: Vec<PathBuf>,
    /// Jails whose launch never ended, and their control groups.
    pub jails: Teardown,
    /// Uids leased to jails that do not exist.
    pub uids: Vec<u32>,
}

impl Jailer {
    /// Every jail below the chroot base, and whether its VM runs; asked of the kernel, not of the jail.
    ///
    /// # Errors
    /// An untrusted base, or a directory or `/proc` that cannot be read.
    ///
    /// # Privileges
    /// Root.
    pub fn list(&self) -> VmRuntimeResult<Vec<Listed>> {
        let Some(base) = self.open_base()? else { return Ok(Vec::new()) };
        let mut list = Vec::new();
        for (_, exec_dir) in jail::exec_dirs(&base)? {
            for name in exec_dir.entries().map_err(Failure::from)? {
                let Some(id) = name.as_str().and_then(|name| name.parse::<JailId>().ok()) else {
                    continue;
                };
                let Ok(dir) = exec_dir.child(&name) else { continue };
                let (vm_id, state) = match Record::read(dir.dir(), dir.path()) {
                    Ok(Some(record)) => (Some(record.vm_id.clone()), state(&record, dir.path())?),
                    Ok(None) => (None, State::Damaged),
                    Err(failure) if failure.kind() == ErrorKind::Record => (None, State::Damaged),
                    Err(failure) => return Err(failure.into()),
                };
                list.push(Listed { jail_id: id, vm_id, path: dir.path().to_owned(), state });
            }
        }
        Ok(list)
    }

    /// Removes what killed launchers left: trees half staged or half removed, jails whose launch never ended, uids
    /// leased to no jail. Running VMs, stopped ones and what another launcher holds are left alone.
    ///
    /// # Errors
    /// As [`list`](Self::list) and [`teardown`](Self::teardown).
    ///
    /// # Privileges
    /// Root.
    pub fn sweep(&self) -> VmRuntimeResult<Swept> {
        let Some(base) = self.open_base()? else { return Ok(Swept::default()) };
        let mut swept = Swept::default();
        // Before the jails are looked at: a lease in this list had its jail, or the staging of it, by now.
        let leases = uid::all(&base)?;
        let mut ids = HashSet::new();
        let mut staging = false;
        for (_, exec_dir) in jail::exec_dirs(&base)? {
            let report = jail_fs::sweep(&exec_dir)
                .map_err(|error| Failure::files("sweep the chroot base", error))?;
            staging |= !report.kept.is_empty();
            swept.trees.extend(report.removed);
            for name in exec_dir.entries().map_err(Failure::from)? {
                let Some(id) = name.as_str().and_then(|name| name.parse::<JailId>().ok()) else {
                    continue;
                };
                match abandoned(&exec_dir, &id)? {
                    Some(found) => swept.jails.add(teardown::remove(&base, found)?),
                    None => drop(ids.insert(id.as_str().to_owned())),
                }
            }
            teardown::remove_if_empty(&base, &exec_dir);
        }
        for (leased, jail) in leases {
            if !staging
                && !ids.contains(&jail)
                && let Ok(id) = jail.parse()
            {
                uid::give_back(&base, &id, leased)?;
                swept.uids.push(leased);
            }
        }
        uid::remove_if_none(&base)?;
        Ok(swept)
    }
}

fn state(record: &Record, jail: &Path) -> Result<State> {
    Ok(match jail::alive(record, jail)? {
        Alive::No => State::Stopped,
        Alive::Recorded(stamp) => State::Running { pid: stamp.pid() },
        Alive::Unrecorded(pids) => State::Unrecorded { pids },
    })
}

/// The jail, locked, if its launch was begun and never ended, and nothing runs in it.
fn abandoned(exec_dir: &jail_fs::TrustedDir, id: &JailId) -> Result<Option<Jail>> {
    let jail = match Jail::lock(exec_dir, id) {
        Ok(Some(jail)) => jail,
        Ok(None) => return Ok(None),
        Err(failure) if failure.kind() == ErrorKind::Busy => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let Ok(Some(record)) = jail.record() else { return Ok(None) };
    let begun = record.progress == Progress::Starting;
    Ok((begun && jail::alive(&record, jail.path())? == Alive::No).then_some(jail))
}

//! Lists the jails of a host ([`Jailer::list`]), and removes remains of killed launchers ([`Jailer::sweep`]).

use std::collections::HashSet;
use std::fmt;
use std::path::PathBuf;

use jail_cmd::JailId;
use jail_fs::{Name, TrustedDir};
use serde::Serialize;

use crate::error::{Error, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::liveness::{Alive, Survey, alive};
use crate::jail::record::{Progress, Record};
use crate::jail::remove::{self, HostProblem, RemoveReport};
use crate::jail::{self, Jail};
use crate::jail::{shared_copy, uid_pool};
use crate::jailer::Jailer;

/// The jails below the chroot base.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ListReport {
    /// The jails.
    pub jails: Vec<JailInfo>,
    /// Directories that could not be looked at: more jails may be in them.
    pub problems: Vec<HostProblem>,
}

/// A jail on the host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct JailInfo {
    /// The jail's id.
    pub jail_id: JailId,
    /// The VM's id, where the record can be read.
    pub vm_id: Option<String>,
    /// The jail's directory on the host.
    pub path: PathBuf,
    /// The state that the kernel reports.
    pub state: JailState,
}

/// The state of a jail, as the kernel reports.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum JailState {
    /// The jail has no process.
    Stopped,
    /// The VM runs.
    Running {
        /// The VMM's pid on the host.
        pid: u32,
    },
    /// The jail has processes that no launcher recorded.
    Unrecorded {
        /// The number of processes.
        processes: u64,
        /// The pids of at most four processes.
        examples: Vec<u32>,
    },
    /// The state is unknown, for example because the record is unreadable. [`Jailer::remove_jail`] removes the jail
    /// once the absence of processes is proven.
    Damaged {
        /// The reason, with all causes.
        reason: String,
    },
}

impl fmt::Display for JailState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stopped => f.write_str("stopped"),
            Self::Running { pid } => write!(f, "running as process {pid}"),
            Self::Unrecorded { processes, examples } => {
                write!(f, "{processes} unrecorded processes, such as {examples:?}")
            }
            Self::Damaged { reason } => write!(f, "damaged: {reason}"),
        }
    }
}

/// The report of a sweep.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct SweepReport {
    /// Trees that were being staged or removed.
    pub trees: Vec<PathBuf>,
    /// The jails of unfinished launches, and the control groups.
    pub jails: RemoveReport,
    /// Uids leased to jails that do not exist.
    pub uids: Vec<u32>,
    /// The paths that could not be read or removed. With any problem, the sweep releases no uid.
    pub problems: Vec<HostProblem>,
}

impl Jailer {
    /// Lists the jails below the chroot base, with the state that the kernel reports. No file inside a jail is trusted.
    ///
    /// Reads `/proc` at most once, and only for jails without a separate control group.
    ///
    /// # Errors
    /// An untrusted or unreadable base. Other failures are in the result: as a [`Damaged`](JailState::Damaged) jail, or in
    /// [`problems`](ListReport::problems).
    ///
    /// # Privileges
    /// Root.
    pub fn list(&self) -> VmRuntimeResult<ListReport> {
        let Some(base) = self.open_base()? else { return Ok(ListReport::default()) };
        host_check::before(Verb::List)?;
        let survey = Survey::default();
        let mut listing = ListReport::default();
        let found = jail::exec_dirs(&base)?;
        listing.problems.extend(problems(&base, &found.problems));
        for (_, exec_dir) in found.dirs {
            let ids = match jail::ids_in(&exec_dir) {
                Ok(ids) => ids,
                Err(failure) => {
                    listing.problems.push(HostProblem::new(exec_dir.path(), &failure));
                    continue;
                }
            };
            let looked =
                ids.into_iter().filter_map(|(name, id)| look(&exec_dir, &name, id, &survey));
            listing.jails.extend(looked.map(|(listed, _)| listed));
        }
        Ok(listing)
    }

    /// Removes what killed launchers left: trees half staged or half removed, jails whose launch never ended, uids
    /// leased to no jail. Running VMs, stopped ones and what another launcher holds are left alone.
    ///
    /// # Errors
    /// As [`list`](Self::list). What could not be swept is in [`problems`](SweepReport::problems).
    ///
    /// # Privileges
    /// Root.
    pub fn sweep(&self) -> VmRuntimeResult<SweepReport> {
        let Some(base) = self.open_base()? else { return Ok(SweepReport::default()) };
        host_check::before(Verb::Sweep)?;
        let survey = Survey::default();
        let mut swept = SweepReport::default();
        let found = jail::exec_dirs(&base)?;
        swept.problems.extend(problems(&base, &found.problems));
        for (exec_name, exec_dir) in &found.dirs {
            match jail_fs::sweep(exec_dir) {
                Ok(report) => {
                    swept.trees.extend(report.removed);
                    swept.problems.extend(report.failed.into_iter().map(|failed| {
                        let failure = Error::files("sweep the chroot base", failed.error);
                        HostProblem::new(&failed.path, &failure)
                    }));
                }
                Err(error) => {
                    let failure = Error::files("sweep the chroot base", error);
                    swept.problems.push(HostProblem::new(exec_dir.path(), &failure));
                }
            }
            let ids = match jail::ids_in(exec_dir) {
                Ok(ids) => ids,
                Err(failure) => {
                    swept.problems.push(HostProblem::new(exec_dir.path(), &failure));
                    continue;
                }
            };
            for (name, id) in ids {
                let Some((listed, record)) = look(exec_dir, &name, id, &survey) else { continue };
                if let JailState::Damaged { reason } = listed.state {
                    swept.problems.push(HostProblem { path: listed.path, reason });
                    continue;
                }
                // Only then is it locked: whoever else wants a jail that is at rest is not to find it busy.
                let begun = record.is_some_and(|record| record.progress == Progress::Starting);
                if !begun || listed.state != JailState::Stopped {
                    continue;
                }
                let removed = abandoned(exec_dir, &listed.jail_id).and_then(|found| {
                    found
                        .map(|found| {
                            remove::remove_jail(&base, exec_dir, exec_name.as_str(), found, &survey)
                        })
                        .transpose()
                });
                match removed {
                    Ok(removed) => swept.jails.add(removed.unwrap_or_default()),
                    Err(failure) => swept.problems.push(HostProblem::new(&listed.path, &failure)),
                }
            }
        }
        shared_copy::sweep(&base, &mut swept.jails, &mut swept.problems);
        if swept.problems.is_empty() {
            match uid_pool::release(&base, || jails_of(&base)) {
                Ok(uids) => swept.uids = uids,
                Err(failure) => swept.problems.push(HostProblem::new(base.path(), &failure)),
            }
        }
        Ok(swept)
    }
}

fn problems(base: &TrustedDir, found: &[(Name, Error)]) -> Vec<HostProblem> {
    found.iter().map(|(name, failure)| HostProblem::new(&base.path().join(name), failure)).collect()
}

/// Looks at one jail; `None` if it has gone since it was found. A jail that is replaced meanwhile is looked at again.
fn look(
    exec_dir: &TrustedDir,
    name: &Name,
    jail_id: JailId,
    survey: &Survey,
) -> Option<(JailInfo, Option<Record>)> {
    let path = exec_dir.path().join(name);
    let damaged = |failure: &Error| {
        let state = JailState::Damaged { reason: (**failure).to_owned() };
        let (jail_id, path) = (jail_id.clone(), path.clone());
        Some((JailInfo { jail_id, vm_id: None, path, state }, None))
    };
    loop {
        let dir = match exec_dir.child(name) {
            Ok(dir) => dir,
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return None,
            Err(error) => return damaged(&Error::files("look at the jail", error)),
        };
        let seen =
            Record::read(&dir).and_then(|record| Ok((state(&record, &dir, survey)?, record)));
        // What is being removed is set aside first: what was seen counts if the name still means the same jail.
        match exec_dir.child(name) {
            Ok(now) if now.id() != dir.id() => continue,
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return None,
            _ => {}
        }
        return match seen {
            Ok((state, record)) => {
                let vm_id = Some(record.vm_id.clone());
                Some((JailInfo { jail_id, vm_id, path, state }, Some(record)))
            }
            Err(failure) => damaged(&failure),
        };
    }
}

fn state(record: &Record, dir: &TrustedDir, survey: &Survey) -> Result<JailState> {
    Ok(match alive(record, dir, survey)? {
        Alive::No => JailState::Stopped,
        Alive::Recorded(stamp) => JailState::Running { pid: stamp.pid() },
        Alive::Unrecorded(crowd) => {
            JailState::Unrecorded { processes: crowd.count, examples: crowd.examples }
        }
    })
}

/// Locks and returns the jail if a launch was begun and not finished and the jail has no process. Checks under the
/// lock.
fn abandoned(exec_dir: &TrustedDir, id: &JailId) -> Result<Option<Jail>> {
    let jail = match Jail::lock(exec_dir, id) {
        Ok(Some(jail)) => jail,
        Ok(None) => return Ok(None),
        // Its launcher lives.
        Err(failure) if failure.kind() == crate::ErrorKind::Busy => return Ok(None),
        Err(failure) => return Err(failure),
    };
    let record = jail.record()?;
    let begun = record.progress == Progress::Starting;
    let stopped = begun && alive(&record, jail.dir(), &Survey::default())? == Alive::No;
    Ok(stopped.then_some(jail))
}

/// The ids of all jails of the base; `None` while a jail is being made or removed, whose files may be a uid's still.
fn jails_of(base: &TrustedDir) -> Result<Option<HashSet<String>>> {
    let found = jail::exec_dirs(base)?;
    if let Some((_, failure)) = found.problems.into_iter().next() {
        return Err(failure);
    }
    let mut ids = HashSet::new();
    for (_, exec_dir) in found.dirs {
        for name in exec_dir.entries().map_err(|error| Error::files("list the jails", error))? {
            match name.as_str() {
                Some(name) if !name.starts_with('.') => drop(ids.insert(name.to_owned())),
                _ => return Ok(None),
            }
        }
    }
    Ok(Some(ids))
}

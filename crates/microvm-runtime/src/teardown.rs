//! Removing a jail: kill the whole control group, wait until it is empty, remove the leaf, the tree and the lease.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jail_cmd::JailId;
use jail_fs::{Name, TrustedDir};
use serde::Serialize;

use crate::error::{ErrorKind, Failure, Result};
use crate::jail::{self, Alive, Jail, open_leaf};
use crate::process;
use crate::record::Record;
use crate::uid;

/// How long killed processes may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

/// What was there, and is gone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Teardown {
    /// Jail directories that were removed.
    pub jails: Vec<PathBuf>,
    /// Files, directories, nodes, links and sockets in them.
    pub entries: u64,
    /// Processes that were killed.
    pub killed: Vec<u32>,
    /// Control group directories that were removed.
    pub cgroups: Vec<PathBuf>,
    /// The uid that was given back.
    pub uid: Option<u32>,
}

impl Teardown {
    pub(crate) fn add(&mut self, other: Self) {
        self.jails.extend(other.jails);
        self.entries += other.entries;
        self.killed.extend(other.killed);
        self.cgroups.extend(other.cgroups);
        self.uid = self.uid.or(other.uid);
    }
}

/// Tears down every jail of this id below `base`; fine where there is none.
pub(crate) fn teardown(base: &TrustedDir, id: &JailId) -> Result<Teardown> {
    let mut report = Teardown::default();
    for (_, exec_dir) in jail::exec_dirs(base)? {
        if let Some(found) = Jail::lock(&exec_dir, id)? {
            report.add(remove(base, found)?);
        }
    }
    Ok(report)
}

/// Kills what runs in the jail, then removes its leaf, the jail itself and its lease of a uid.
pub(crate) fn remove(base: &TrustedDir, found: Jail) -> Result<Teardown> {
    // A record that cannot be read tells nothing, and must not keep the jail from going.
    let record = match found.record() {
        Ok(record) => record,
        Err(failure) if failure.kind() == ErrorKind::Record => None,
        Err(failure) => return Err(failure),
    };
    let mut report = Teardown::default();
    if let Some(record) = &record {
        report.killed = kill(record, found.path())?;
    }
    // Before the record goes with the tree: nothing else knows of the leaf, and a removal that is cut short is taken up
    // again by the record.
    if let Some(record) = &record {
        report.cgroups = remove_leaf(record)?;
    }
    let id = found.id()?;
    let name = Name::try_from(id.as_str())?;
    let removed = jail_fs::remove_tree(&found.exec_dir, &name, Some(found.dir.id()))
        .map_err(|error| Failure::files(format!("remove the jail {id}"), error))?;
    report.entries = removed.entries;
    report.jails.push(found.path().to_owned());
    remove_if_empty(base, &found.exec_dir);
    // After the last file that belongs to it.
    if let Some(record) = record.filter(|record| record.uid_leased) {
        uid::give_back(base, &record.jail_id, record.uid)?;
        report.uid = Some(record.uid);
    }
    Ok(report)
}

/// Removes a directory of ours below the base with the last thing in it (`rmdir(2)`). One that is in use stays.
pub(crate) fn remove_if_empty(base: &TrustedDir, dir: &TrustedDir) {
    if let Some(name) = dir.path().file_name() {
        let _ = rustix::fs::unlinkat(base.dir(), name, rustix::fs::AtFlags::REMOVEDIR);
    }
}

/// Kills all that runs in the jail, and waits until the kernel says that nothing does.
pub(crate) fn kill(record: &Record, jail: &Path) -> Result<Vec<u32>> {
    let operation = || format!("kill the VM {:?}", record.vm_id);
    let deadline = Instant::now() + DEATH;
    let mut killed = Vec::new();
    if let Some(leaf) = open_leaf(record)? {
        killed = leaf.members()?;
        if !killed.is_empty() {
            // Held before they are killed, so that those which are our children can be reaped.
            let held = process::hold(&killed)?;
            leaf.kill().map_err(|error| Failure::cgroup(operation(), error))?;
            leaf.wait_empty(DEATH).map_err(|error| Failure::cgroup(operation(), error))?;
            process::reap(&held, deadline);
        }
    }
    // Whoever is left is in no group of ours: the recorded process, a jailer that is on its way into the jail, and what
    // has the jail as its root.
    loop {
        let pids = match jail::alive(record, jail)? {
            Alive::No => return Ok(killed),
            Alive::Recorded(stamp) => vec![stamp.pid()],
            Alive::Unrecorded(pids) => pids,
        };
        for pid in pids {
            process::kill_if(pid, deadline, |pid| {
                process::is_rooted_in(pid, record.root) || process::is_on_its_way(pid, jail)
            })?;
            if !killed.contains(&pid) {
                killed.push(pid);
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::new(ErrorKind::Timeout, operation())
                .because(format!("processes {killed:?} are still there after {DEATH:?}")));
        }
    }
}

/// Removes the recorded leaf; what was removed.
pub(crate) fn remove_leaf(record: &Record) -> Result<Vec<PathBuf>> {
    match open_leaf(record)? {
        None => Ok(Vec::new()),
        Some(leaf) => {
            let report = leaf
                .remove()
                .map_err(|error| Failure::cgroup("remove the VM's control group", error))?;
            Ok(report.removed)
        }
    }
}

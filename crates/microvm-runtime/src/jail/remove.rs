//! Removing a jail: end all that runs in it, then remove the leaf, the tree and the lease of its uid.

use std::path::{Path, PathBuf};

use jail_cgroup::Leaf;
use jail_cmd::JailId;
use jail_fs::{Name, Strategy, TrustedDir};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result};
use crate::jail::ending::{self, Ended};
use crate::jail::liveness::Survey;
use crate::jail::record::Record;
use crate::jail::uid_pool;
use crate::jail::{self, Jail};

/// The report of a removal: what was killed and removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct RemoveReport {
    /// Jail directories that were removed.
    pub jails: Vec<PathBuf>,
    /// The number of removed files, directories, nodes, links and sockets.
    pub entries: u64,
    /// The number of killed processes.
    pub killed: u64,
    /// Control group directories that were removed.
    pub cgroups: Vec<PathBuf>,
    /// The uid that was given back.
    pub uid: Option<u32>,
}

impl RemoveReport {
    pub(crate) fn add(&mut self, other: Self) {
        self.jails.extend(other.jails);
        self.entries += other.entries;
        self.killed += other.killed;
        self.cgroups.extend(other.cgroups);
        self.uid = self.uid.or(other.uid);
    }
}

/// Removes every jail of this id below `base`. Succeeds if there is none.
///
/// # Errors
/// Also if a directory that may hold the jail could not be read. Jails in other directories are removed first.
pub(crate) fn remove_by_id(base: &TrustedDir, id: &JailId) -> Result<RemoveReport> {
    let survey = Survey::default();
    let mut report = RemoveReport::default();
    let mut failure: Option<Error> = None;
    let mut found = jail::exec_dirs(base)?;
    for (exec_name, exec_dir) in std::mem::take(&mut found.dirs) {
        let removed = Jail::lock(&exec_dir, id).and_then(|jail| {
            jail.map(|jail| remove_jail(base, &exec_dir, exec_name.as_str(), jail, &survey))
                .transpose()
        });
        match removed {
            Ok(removed) => report.add(removed.unwrap_or_default()),
            Err(error) => failure = Some(joined(failure, error)),
        }
    }
    if let Err(error) = found.refuse_hidden(base, id) {
        failure = Some(joined(failure, error));
    }
    failure.map_or(Ok(report), Err)
}

fn joined(first: Option<Error>, next: Error) -> Error {
    match first {
        None => next,
        Some(first) => first.and_cleanup::<()>(Err(next)),
    }
}

/// Kills the processes of the jail, then removes the leaf, the jail and the lease of the uid.
pub(crate) fn remove_jail(
    base: &TrustedDir,
    exec_dir: &TrustedDir,
    exec_name: &str,
    found: Jail,
    survey: &Survey,
) -> Result<RemoveReport> {
    let id = found.id()?;
    let record = match found.record() {
        Ok(record) => Some(record),
        Err(failure) if failure.kind() == ErrorKind::Record => None,
        Err(failure) => return Err(failure),
    };
    let Ended { killed, leaves } = match &record {
        Some(record) => ending::end(base, &found, record, survey)?,
        None => ending::end_without_record(base, exec_name, &found, survey)?,
    };
    let mut report = RemoveReport { killed, ..RemoveReport::default() };
    if let Some(record) = &record {
        return_drives(found.dir(), record)?;
    }
    // Before the record goes with the tree: a removal that is cut short is taken up again by the record.
    report.cgroups = remove_leaves(leaves)?;
    let name = Name::try_from(id.as_str())?;
    let removed = jail_fs::remove_tree(exec_dir, &name, Some(found.dir().id()))
        .map_err(|error| Error::files(format!("remove the jail {id}"), error))?;
    report.entries = removed.entries;
    report.jails.push(found.path().to_owned());
    // After the last file that belongs to it; the directory's number is held by the lock until then.
    report.uid = match record {
        Some(record) if !record.uid_leased => None,
        Some(record) => uid_pool::give_back(base, &id, found.dir().id(), record.uid)?,
        None => uid_pool::give_back_all(base, &id, found.dir().id())?,
    };
    Ok(report)
}

/// Restores the owners of a stopped jail's persistent drives, and unlinks the drives from the jail.
pub(crate) fn return_drives(dir: &TrustedDir, record: &Record) -> Result<()> {
    let mut lent =
        record.receipts.iter().filter(|it| it.strategy == Strategy::PersistentLink).peekable();
    if lent.peek().is_none() {
        return Ok(());
    }
    // Without the root that was staged they are looked for under the paths that they came from.
    let root = jail::open_root(dir)?.filter(|(_, id)| *id == record.root).map(|(root, _)| root);
    let root = root.as_ref().unwrap_or(dir.dir());
    for receipt in lent {
        jail_fs::return_persistent(root, receipt).map_err(|error| {
            Error::files(format!("return the persistent drive {}", receipt.name), error)
        })?;
    }
    Ok(())
}

/// Removes leaves that are empty; what was removed.
pub(crate) fn remove_leaves(leaves: Vec<Leaf>) -> Result<Vec<PathBuf>> {
    let mut removed = Vec::new();
    for leaf in leaves {
        let report =
            leaf.remove().map_err(|error| Error::cgroup("remove the VM's control group", error))?;
        removed.extend(report.removed);
    }
    Ok(removed)
}

/// A part of the host that could not be looked at, or not be cleaned up. What it hides is neither counted nor released.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct HostProblem {
    /// The directory or the file.
    pub path: PathBuf,
    /// The reason, with all causes.
    pub reason: String,
}

impl HostProblem {
    pub(crate) fn new(path: &Path, failure: &Error) -> Self {
        Self { path: path.to_owned(), reason: (**failure).to_owned() }
    }
}

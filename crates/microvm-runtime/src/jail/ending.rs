//! Kills all processes of a jail, and proves that none is left. Without that proof, nothing of the jail is removed.

use std::collections::HashSet;
use std::path::Path;
use std::time::Duration;

use jail_cgroup::{ErrorKind as CgroupError, Leaf};
use jail_fs::{InodeId, TrustedDir};

use crate::deadline::{Deadline, KILL_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::jail::liveness::{self, Survey};
use crate::jail::record::{Progress, Record};
use crate::jail::uid_pool;
use crate::jail::{self, Jail};
use crate::sys::file::FileStat;
use crate::sys::process::effective_uid;
use crate::vmm::{self, Crowd, PidNamespace, Suspect};

/// The number of child processes held at a time during the kill of a group, to reap the children.
const CHILDREN: usize = 32;

/// A jail that nothing runs in.
#[derive(Debug)]
pub(crate) struct Ended {
    /// The number of killed processes.
    pub(crate) killed: u64,
    /// The jail's leaves, empty.
    pub(crate) leaves: Vec<Leaf>,
}

impl Ended {
    fn new(killed: &HashSet<u32>, leaves: Vec<Leaf>) -> Self {
        Self { killed: killed.len().try_into().unwrap_or(u64::MAX), leaves }
    }
}

/// Kills all processes of the jail that `record` describes.
pub(crate) fn end(
    base: &TrustedDir,
    jail: &Jail,
    record: &Record,
    survey: &Survey,
) -> Result<Ended> {
    let deadline = Deadline::after(KILL_TIMEOUT);
    let own_pids = record.has_own_pids()?;
    let stamp = match &record.progress {
        Progress::Started(stamp) if own_pids => Some(stamp),
        Progress::Started(_) | Progress::Prepared | Progress::Starting => None,
    };
    let leaves = liveness::leaves(record, survey)?;
    let mut killed = HashSet::new();
    kill_leaves(&leaves, &mut killed, deadline)?;
    if record.born_in_leaf || (stamp.is_some() && is_alone(record)) {
        // Moved out of its leaf by somebody, or the first of a pid namespace, which all others in there end with.
        if let Some(stamp) = stamp {
            vmm::kill_recorded(stamp, &mut killed, deadline)?;
        }
    } else {
        // Held from here on, so that its number is no other jail's.
        let root = jail::open_root(jail.dir())?.filter(|(_, id)| *id == record.root);
        let starting = record.jailer.filter(|_| stamp.is_none());
        let suspect = Suspect {
            stamp,
            root: root.as_ref().map(|(_, id)| *id),
            jailer: starting.map(|jailer| (jailer, jail.path())),
        };
        vmm::kill_all(suspect, &mut killed, deadline)?;
        if let Some(stamp) = stamp {
            // Reaps a child that ended unseen: a traced one can be reaped only once its tracer has ended.
            vmm::kill_recorded(stamp, &mut killed, deadline)?;
        }
    }
    if !record.born_in_leaf {
        prove(base, jail.path(), record, deadline)?;
    }
    Ok(Ended::new(&killed, leaves))
}

/// Returns true if the VMM is the first process of a pid namespace.
fn is_alone(record: &Record) -> bool {
    record.spec.pid_namespace != PidNamespace::Host
}

/// Proves that a jail without a separate leaf has no process. The end of a pid namespace's first process ends all
/// others.
pub(crate) fn prove_ended(base: &TrustedDir, jail: &Path, record: &Record) -> Result<()> {
    if record.born_in_leaf {
        return Ok(());
    }
    prove(base, jail, record, Deadline::after(KILL_TIMEOUT))
}

fn prove(base: &TrustedDir, jail: &Path, record: &Record, deadline: Deadline) -> Result<()> {
    if !record.uid_leased && is_alone(record) && record.progress != Progress::Starting {
        return Ok(());
    }
    refuse_unexplained(base, jail, record.uid, deadline)
}

/// Kills the processes of a jail with an unreadable record: the members of the marked leaf, and the processes whose
/// root directory is the held `root/` or a directory below.
///
/// # Errors
/// [`Record`](ErrorKind::Record) if processes are left of which it is not known whether they are the jail's.
pub(crate) fn end_without_record(
    base: &TrustedDir,
    exec_name: &str,
    jail: &Jail,
    survey: &Survey,
) -> Result<Ended> {
    let deadline = Deadline::after(KILL_TIMEOUT);
    let id = jail.id()?;
    let leaves = liveness::leaves_without_record(base.id(), exec_name, id.as_str(), survey)?;
    let mut killed = HashSet::new();
    kill_leaves(&leaves, &mut killed, deadline)?;
    // What ran in the leaf was born there, and so was all else of it.
    let born_in_leaf = !killed.is_empty();
    let root = jail::open_root(jail.dir())?;
    let rooted = root.as_ref().map(|(_, id)| *id);
    let suspect = Suspect { stamp: None, root: rooted, jailer: None };
    vmm::kill_all(suspect, &mut killed, deadline)?;
    if !born_in_leaf {
        let mut uids = uid_pool::all(base)?.leases_of(id.as_str());
        if let Some((root, _)) = &root {
            uids.extend(owner_of(root)?);
        }
        for uid in uids {
            refuse_unexplained(base, jail.path(), uid, deadline)?;
        }
    }
    Ok(Ended::new(&killed, leaves))
}

/// The uid that a jail's root was given to; `None` if it is the launcher's still, so that nothing was started in it.
fn owner_of(root: &jail_fs::Dir) -> Result<Option<u32>> {
    let stat = FileStat::of(root).map_err(|errno| {
        Error::new(ErrorKind::Filesystem, "examine the jail's root").source_of(errno)
    })?;
    let ours = stat.uid() == 0 || stat.uid() == effective_uid();
    Ok((!ours).then_some(stat.uid()))
}

/// Refuses to go on while a process of `uid` lives that may be the jail's. What has just been killed takes a moment to
/// end.
fn refuse_unexplained(base: &TrustedDir, jail: &Path, uid: u32, deadline: Deadline) -> Result<()> {
    let mut others: Option<HashSet<InodeId>> = None;
    let mut looks = 0;
    loop {
        if !vmm::uid_is_in_use(uid)? {
            return Ok(());
        }
        let others = match &mut others {
            Some(others) => others,
            None => others.insert(jail::other_roots(base, jail)?),
        };
        let left: Crowd = vmm::unexplained(uid, |root| others.contains(&root))?;
        if left.is_empty() {
            return Ok(());
        }
        // Nothing of it was killed here, so only what is about to end anyway can still go.
        looks += 1;
        if looks > LOOKS || deadline.has_passed() {
            return Err(Error::new(ErrorKind::Record, "prove that nothing runs in the jail")
                .path(jail)
                .because(format!(
                    "{left} of uid {uid} may be the VM's: neither a control group, nor a root directory, nor a \
                     record tells"
                ))
                .hinted("End what is the VM's, then tear the jail down again. A uid of its own for each VM (`User::Leased`) and a control group leave no such doubt."));
        }
        std::thread::sleep(LOOK_INTERVAL);
    }
}

/// The number of checks for possible processes of a jail, and the pause between the checks.
const LOOKS: u32 = 50;
const LOOK_INTERVAL: Duration = Duration::from_millis(10);

/// Kills all processes in these leaves, adds the pids to `killed`, and waits until every leaf is empty.
fn kill_leaves(leaves: &[Leaf], killed: &mut HashSet<u32>, deadline: Deadline) -> Result<()> {
    leaves.iter().try_for_each(|leaf| kill_leaf(leaf, killed, deadline))
}

fn kill_leaf(leaf: &Leaf, killed: &mut HashSet<u32>, deadline: Deadline) -> Result<()> {
    let failed = |error| Error::cgroup("kill what runs in the VM's control group", error);
    match leaf.is_empty() {
        Ok(false) => {}
        Ok(true) => return Ok(()),
        // Gone is empty.
        Err(error) if error.kind() == CgroupError::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    }
    let members = leaf.members().unwrap_or_default();
    let children = vmm::hold_children(&members, CHILDREN);
    leaf.kill().map_err(failed)?;
    leaf.wait_empty(deadline.left().unwrap_or(KILL_TIMEOUT)).map_err(failed)?;
    vmm::reap(&children, deadline);
    killed.extend(members);
    Ok(())
}

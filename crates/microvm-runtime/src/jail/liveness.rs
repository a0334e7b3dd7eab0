//! Finds the processes of jails, with one search of the host for all jails of a call.

use std::cell::OnceCell;

use jail_cgroup::{ErrorKind as CgroupError, Host, Leaf};
use jail_fs::{InodeId, TrustedDir};

use crate::error::{Error, ErrorKind, Result};
use crate::jail::record::{Progress, Record};
use crate::jail::{self, leaf_mark};
use crate::vmm::{Census, Crowd, ProcessStamp};

/// The state of the host during one call of a public verb. Each part is read once, for the first jail that needs the
/// part.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    host: OnceCell<Host>,
    census: OnceCell<Census>,
}

impl Survey {
    /// The control groups.
    pub(crate) fn host(&self) -> Result<&Host> {
        once(&self.host, || {
            Host::discover().map_err(|error| Error::cgroup("find the control groups", error))
        })
    }

    /// The processes: only jails that leave a question open ask for them.
    fn census(&self) -> Result<&Census> {
        once(&self.census, Census::take)
    }
}

fn once<T>(cell: &OnceCell<T>, make: impl FnOnce() -> Result<T>) -> Result<&T> {
    if let Some(made) = cell.get() {
        return Ok(made);
    }
    let made = make()?;
    Ok(cell.get_or_init(|| made))
}

/// The state of a jail's VM, as the kernel reports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Alive {
    No,
    /// The VMM that was recorded.
    Recorded(ProcessStamp),
    /// Processes that nobody recorded: started by hand, or by a launcher that was killed. One may be a jailer still.
    Unrecorded(Crowd),
}

/// Reads from the kernel if the jail at `dir` has a process. No file inside the jail is trusted.
///
/// Membership is proof: a process spawned into the jail's leaf cannot leave the leaf, so the recorded process and the
/// leaf suffice. The host's processes are searched only without such a leaf.
pub(crate) fn alive(record: &Record, dir: &TrustedDir, survey: &Survey) -> Result<Alive> {
    let own_pids = record.has_own_pids()?;
    if let Progress::Started(stamp) = &record.progress {
        if own_pids && stamp.still_alive()? {
            return Ok(Alive::Recorded(stamp.clone()));
        }
    }
    let mut crowd = Crowd::default();
    for leaf in leaves(record, survey)? {
        match leaf.members() {
            Ok(members) => crowd = Crowd::of(&members),
            // Removed since, which takes that nobody is in it.
            Err(error) if error.kind() == CgroupError::NotFound => {}
            Err(error) => return Err(Error::cgroup("read the control group's members", error)),
        }
        if !own_pids
            && !leaf.is_empty().map_err(|error| Error::cgroup("read the control group", error))?
        {
            crowd = Crowd { count: crowd.count.max(1), ..crowd };
        }
        if !crowd.is_empty() {
            return Ok(Alive::Unrecorded(crowd));
        }
    }
    if record.born_in_leaf {
        return Ok(Alive::No);
    }
    // In the order in which a jailer passes: first it is outside, then in the jail.
    let census = survey.census()?;
    let starting = !matches!(record.progress, Progress::Started(_));
    if let Some(jailer) = record.jailer.filter(|_| starting) {
        crowd = census.starting(jailer, dir.path());
    }
    if crowd.is_empty() {
        let root = jail::open_root(dir)?.filter(|(_root, id)| *id == record.root);
        if let Some((_root, id)) = root {
            crowd = census.rooted_in(id);
        }
    }
    if crowd.is_empty() && !census.hidden(record.uid).is_empty() {
        return Err(Error::new(ErrorKind::Privilege, "look for the VM's processes")
            .path(dir.path())
            .because(format!("the root directory of {} cannot be read", census.hidden(record.uid)))
            .hinted("Run with CAP_SYS_PTRACE."));
    }
    Ok(if crowd.is_empty() { Alive::No } else { Alive::Unrecorded(crowd) })
}

/// The leaves of a jail that exist: the recorded one, or, if another jail's leaf has its name in some hierarchy, those
/// that carry the jail's mark.
pub(crate) fn leaves(record: &Record, survey: &Survey) -> Result<Vec<Leaf>> {
    let Some(id) = &record.leaf else { return Ok(Vec::new()) };
    let host = survey.host()?;
    match id.open(host) {
        Ok(leaf) => Ok(leaf.into_iter().collect()),
        Err(error) if error.kind() == CgroupError::Foreign => match id.owner() {
            Some(mark) => marked_leaves(mark, record.jail_id.as_str(), host),
            None => Err(Error::cgroup("open the VM's control group", error)),
        },
        Err(error) => Err(Error::cgroup("open the VM's control group", error)),
    }
}

/// Returns the leaves of a jail with an unreadable record.
pub(crate) fn leaves_without_record(
    base: InodeId,
    exec_name: &str,
    jail_id: &str,
    survey: &Survey,
) -> Result<Vec<Leaf>> {
    marked_leaves(&leaf_mark(base, exec_name, jail_id), jail_id, survey.host()?)
}

fn marked_leaves(mark: &str, name: &str, host: &Host) -> Result<Vec<Leaf>> {
    let operation = "find the VM's control group by its mark";
    let mut found =
        host.leaves_owned_by(mark, name).map_err(|error| Error::cgroup(operation, error))?;
    match found.unsearched.pop() {
        // What could not be looked at may hold it.
        Some(error) => Err(Error::cgroup(operation, error)),
        None => Ok(found.leaves),
    }
}

/// The error of an operation that needs the VM to be stopped.
pub(crate) fn still_running(operation: impl Into<String>, vm_id: &str, alive: &Alive) -> Error {
    let processes = match alive {
        Alive::No => String::new(),
        Alive::Recorded(stamp) => format!(" as process {}", stamp.pid()),
        Alive::Unrecorded(crowd) => format!(" as {crowd}"),
    };
    Error::new(ErrorKind::Running, operation)
        .because(format!("the VM {vm_id:?} runs{processes}"))
        .hinted("Shut the VM down first.")
}

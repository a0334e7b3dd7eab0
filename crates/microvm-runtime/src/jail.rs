//! One jail's directory, held and locked: `<base>/<exec name>/<jail id>/` with `root/` and the record.

use std::path::Path;

use jail_cgroup::{Host, Leaf};
use jail_cmd::{ExecName, JailId};
use jail_fs::{Lease, Name, TrustedDir};

use crate::error::{ErrorKind, Failure, Result};
use crate::process::{self, ProcessStamp};
use crate::record::{Progress, Record};

/// Name of the jail's root in the jail's directory.
pub(crate) const ROOT: &str = "root";

/// A jail whose directory this process holds the lock of.
#[derive(Debug)]
pub(crate) struct Jail {
    pub(crate) exec_dir: TrustedDir,
    pub(crate) dir: TrustedDir,
    pub(crate) _lock: Lease,
}

impl Jail {
    /// Takes the lock of the jail `id` in `exec_dir`; `None` where there is no such jail.
    ///
    /// One launcher at a time owns a jail: [`ErrorKind::Busy`] where another does.
    pub(crate) fn lock(exec_dir: &TrustedDir, id: &JailId) -> Result<Option<Self>> {
        let operation = || format!("lock the jail {id}");
        let name = Name::try_from(id.as_str())?;
        loop {
            let dir = match exec_dir.child(&name) {
                Ok(dir) => dir,
                Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Failure::files(operation(), error)),
            };
            let lock = Lease::try_acquire(&dir).map_err(|error| {
                Failure::files(operation(), error)
                    .hinted("another launcher has it, or a `Vm` of this one whose end nobody saw: wait for its end")
            })?;
            // Between the look-up and the lock a restart may have put another directory in its place.
            match exec_dir.child(&name) {
                Ok(now) if now.id() == dir.id() => {
                    // One descriptor for both.
                    let dir = lock.dir().clone();
                    return Ok(Some(Self { exec_dir: exec_dir.clone(), dir, _lock: lock }));
                }
                Ok(_) => {}
                Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Failure::files(operation(), error)),
            }
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn record(&self) -> Result<Option<Record>> {
        Record::read(self.dir.dir(), self.path())
    }
}

/// The directories `<base>/<exec name>` of `base`.
pub(crate) fn exec_dirs(base: &TrustedDir) -> Result<Vec<(ExecName, TrustedDir)>> {
    let mut found = Vec::new();
    for name in base.entries()? {
        let Some(exec_name) = name
            .as_str()
            .filter(|name| !name.starts_with('.'))
            .and_then(|name| ExecName::new(name).ok())
        else {
            continue;
        };
        match base.child(&name) {
            Ok(dir) => found.push((exec_name, dir)),
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => {}
            // Not a directory, or not one that only root can change: no jail of ours is in it.
            Err(error) if error.kind() == jail_fs::ErrorKind::Untrusted => {}
            Err(error) => return Err(Failure::files("list the chroot base", error)),
        }
    }
    Ok(found)
}

/// What the kernel says of a jail's VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Alive {
    No,
    /// The VMM that was recorded.
    Recorded(ProcessStamp),
    /// Processes that nobody recorded: started by hand, or by a launcher that was killed. One may be a jailer still.
    Unrecorded(Vec<u32>),
}

/// Asks the kernel whether anything of this jail, which is at `jail`, runs: the recorded process, a jailer that nobody
/// recorded, the leaf's members, and whoever has the jail as its root directory. Nothing inside the jail is believed.
pub(crate) fn alive(record: &Record, jail: &Path) -> Result<Alive> {
    if let Progress::Started(stamp) = &record.progress
        && stamp.still_alive()?
    {
        return Ok(Alive::Recorded(stamp.clone()));
    }
    // In the order in which a jailer passes: first it is outside, then in the leaf, then in the jail.
    let mut pids = match record.progress {
        Progress::Started(_) => Vec::new(),
        Progress::Prepared | Progress::Starting => process::on_the_way(jail)?,
    };
    if pids.is_empty()
        && let Some(leaf) = open_leaf(record)?
    {
        pids = leaf.members()?;
    }
    if pids.is_empty() {
        pids = process::rooted_in(record.root)?;
    }
    Ok(if pids.is_empty() { Alive::No } else { Alive::Unrecorded(pids) })
}

/// The recorded leaf, where it still exists.
pub(crate) fn open_leaf(record: &Record) -> Result<Option<Leaf>> {
    let Some(id) = &record.leaf else { return Ok(None) };
    let host =
        Host::discover().map_err(|error| Failure::cgroup("find the control groups", error))?;
    id.open(&host).map_err(|error| Failure::cgroup("open the VM's control group", error))
}

/// The error of an operation that needs the VM to be stopped.
pub(crate) fn still_running(operation: impl Into<String>, vm_id: &str, alive: &Alive) -> Failure {
    let who = match alive {
        Alive::No => String::new(),
        Alive::Recorded(stamp) => format!(" as process {}", stamp.pid()),
        Alive::Unrecorded(pids) => format!(" as processes {pids:?}"),
    };
    Failure::new(ErrorKind::Running, operation)
        .because(format!("the VM {vm_id:?} runs{who}"))
        .hinted("shut it down first")
}

//! The processes of this host: counted by one pass over `/proc`, and killed by passes that keep a pid of each.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use jail_fs::InodeId;

use super::stamp::ProcessStamp;
use super::starting_jailer::{is_starting_jailer, may_be_jailer};
use super::{pidfd, procfs};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{Errno, file, process};

/// Processes that are named, of however many there are.
const EXAMPLES: usize = 4;

/// The largest number of threads of a process whose root directories are read, if the first thread has exited.
const THREADS: usize = 64;

/// Levels that are climbed from a process's root directory.
const LEVELS: usize = 4096;

/// Some processes: how many, and the pids of a few.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Crowd {
    pub(crate) count: u64,
    pub(crate) examples: Vec<u32>,
}

impl Crowd {
    pub(crate) fn of(pids: &[u32]) -> Self {
        Self {
            count: pids.len().try_into().unwrap_or(u64::MAX),
            examples: pids.iter().copied().take(EXAMPLES).collect(),
        }
    }

    fn add(&mut self, pid: u32) {
        self.count += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(pid);
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }
}

impl fmt::Display for Crowd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let examples = self.examples.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
        let more = if self.count > self.examples.len() as u64 { ", …" } else { "" };
        let noun = if self.count == 1 { "process" } else { "processes" };
        write!(f, "{} {noun} (pid {examples}{more})", self.count)
    }
}

/// All processes of this host by root directory, read in one pass over `/proc` for all jails.
#[derive(Debug, Default)]
pub(crate) struct Census {
    rooted: HashMap<InodeId, Crowd>,
    /// The processes with a root directory that this process may not read, by effective uid.
    hidden: HashMap<u32, Crowd>,
    /// The processes with the launcher's uid and the arguments of a jailer.
    jailers: Vec<u32>,
}

impl Census {
    pub(crate) fn take() -> Result<Self> {
        let mut census = Self::default();
        for pid in procfs::processes()? {
            let pid = pid?;
            match Root::of(pid) {
                Root::Held { id, .. } => census.rooted.entry(id).or_default().add(pid),
                Root::None => {}
                Root::Hidden => {
                    if let Some(uid) = procfs::effective_uid(pid) {
                        census.hidden.entry(uid).or_default().add(pid);
                    }
                }
            }
            if may_be_jailer(pid) {
                census.jailers.push(pid);
            }
        }
        Ok(census)
    }

    /// Returns the processes with this root directory.
    ///
    /// The inode number is reliable only while the caller holds the directory open.
    pub(crate) fn rooted_in(&self, root: InodeId) -> Crowd {
        self.rooted.get(&root).cloned().unwrap_or_default()
    }

    /// Returns the processes of this uid with an unreadable root directory.
    pub(crate) fn hidden(&self, uid: u32) -> Crowd {
        self.hidden.get(&uid).cloned().unwrap_or_default()
    }

    /// Returns the jailers that have not entered this jail yet.
    pub(crate) fn starting(&self, jailer: InodeId, jail: &Path) -> Crowd {
        let mut crowd = Crowd::default();
        for pid in self.jailers.iter().filter(|pid| is_starting_jailer(**pid, jailer, jail)) {
            crowd.add(*pid);
        }
        crowd
    }
}

/// The root directory of a process.
enum Root {
    Held {
        id: InodeId,
        fd: OwnedFd,
    },
    /// The process has ended, or is a kernel thread.
    None,
    /// This process may not look.
    Hidden,
}

impl Root {
    fn of(pid: u32) -> Self {
        match file::open_path(format!("/proc/{pid}/root")) {
            Ok(fd) => match InodeId::of(&fd) {
                Ok(id) => Self::Held { id, fd },
                Err(_) => Self::Hidden,
            },
            Err(Errno::NOENT | Errno::SRCH) => Self::of_other_threads(pid),
            Err(_) => Self::Hidden,
        }
    }

    /// Reads the root directories of the other threads of a process whose first thread has exited.
    fn of_other_threads(pid: u32) -> Self {
        let dir = format!("/proc/{pid}/task");
        let Ok(threads) = procfs::numbers(&dir) else { return Self::None };
        for thread in threads.flatten().filter(|thread| *thread != pid).take(THREADS) {
            let Ok(fd) = file::open_path(format!("{dir}/{thread}/root")) else { continue };
            if let Ok(id) = InodeId::of(&fd) {
                return Self::Held { id, fd };
            }
        }
        Self::None
    }
}

/// Finds the first directory at or above `dir` for which `wanted` returns true, up to the top of the mount tree (`..`).
/// So a process with a root directory deeper in a jail is found by the jail's root, in any mount namespace.
fn climb(dir: impl AsFd, id: InodeId, wanted: impl Fn(InodeId) -> bool) -> Option<InodeId> {
    if wanted(id) {
        return Some(id);
    }
    let up = |dir: &dyn AsFd| {
        let fd = file::open_parent(dir.as_fd()).ok()?;
        let id = InodeId::of(&fd).ok()?;
        Some((fd, id))
    };
    let (mut fd, mut above) = up(&dir)?;
    let mut below = id;
    for _ in 0..LEVELS {
        if wanted(above) {
            return Some(above);
        }
        if above == below {
            return None;
        }
        below = above;
        (fd, above) = up(&fd)?;
    }
    None
}

/// The marks of a process that may belong to a jail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Suspect<'a> {
    /// The process that was recorded.
    pub(crate) stamp: Option<&'a ProcessStamp>,
    /// The jail's root directory, which the caller holds.
    pub(crate) root: Option<InodeId>,
    /// The jailer of an unfinished launch, and the jail that the jailer would enter.
    pub(crate) jailer: Option<(InodeId, &'a Path)>,
}

impl Suspect<'_> {
    fn is(&self, pid: u32) -> bool {
        let is_recorded = self
            .stamp
            .is_some_and(|stamp| stamp.pid() == pid && stamp.still_alive().unwrap_or(false));
        is_recorded
            || self.root.is_some_and(|root| match Root::of(pid) {
                Root::Held { id, fd } => climb(&fd, id, |id| id == root).is_some(),
                Root::None | Root::Hidden => false,
            })
            || self.jailer.is_some_and(|(jailer, jail)| is_starting_jailer(pid, jailer, jail))
    }
}

/// Kills every process that is a suspect, in passes over `/proc` until one finds none, and adds the pids to `killed`.
/// One process is held at a time. A process that is slow to exit is found again, and counts once.
///
/// # Errors
/// [`Timeout`](ErrorKind::Timeout) if there are still some at the deadline.
pub(crate) fn kill_all(
    suspect: Suspect<'_>,
    killed: &mut HashSet<u32>,
    deadline: Deadline,
) -> Result<()> {
    let me = std::process::id();
    loop {
        let mut found = Crowd::default();
        for pid in procfs::processes()? {
            let pid = pid?;
            if pid != me && suspect.is(pid) && pidfd::kill_if(pid, deadline, |pid| suspect.is(pid))?
            {
                found.add(pid);
                killed.insert(pid);
            }
        }
        if found.is_empty() {
            return Ok(());
        }
        if deadline.has_passed() {
            let because = format!("after {} kills it still has {found}", killed.len());
            return Err(
                Error::new(ErrorKind::Timeout, "kill what runs in the jail").because(because)
            );
        }
        // What was killed first is the likeliest to be gone.
        for pid in found.examples {
            if let Some(pidfd) = pidfd::open(pid)? {
                pidfd::ended_by(pidfd.as_fd(), deadline)?;
            }
        }
    }
}

/// The processes of this effective uid that cannot be distinguished from the jail's: those in some other root directory
/// than this host's own and that of another jail.
pub(crate) fn unexplained(uid: u32, is_other_jail: impl Fn(InodeId) -> bool) -> Result<Crowd> {
    let host = InodeId::of(procfs::held(std::process::id(), "root")?)?;
    let mut crowd = Crowd::default();
    for pid in procfs::processes()? {
        let pid = pid?;
        if procfs::effective_uid(pid) != Some(uid) {
            continue;
        }
        let explained = match Root::of(pid) {
            Root::Held { id, fd } => climb(&fd, id, |id| id == host || is_other_jail(id)).is_some(),
            Root::None => true,
            Root::Hidden => false,
        };
        if !explained {
            crowd.add(pid);
        }
    }
    Ok(crowd)
}

/// Returns true if a process or a zombie of this pid namespace has this real uid (`getpriority(2)`). The call fails
/// with `ESRCH` if no process has the uid, and then is cheap even with many processes.
pub(crate) fn uid_is_in_use(uid: u32) -> Result<bool> {
    process::uid_is_in_use(uid).map_err(|errno| {
        Error::new(ErrorKind::Identity, format!("look for processes of uid {uid}")).source_of(errno)
    })
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    fn root_of(pid: u32) -> InodeId {
        InodeId::of(procfs::held(pid, "root").unwrap()).unwrap()
    }

    #[test]
    fn processes_are_counted_by_their_root() {
        let me = std::process::id();
        let census = Census::take().unwrap();
        assert!(census.rooted_in(root_of(me)).count > 0);
        let elsewhere = InodeId::of(procfs::held(me, "exe").unwrap()).unwrap();
        assert_eq!(census.rooted_in(elsewhere), Crowd::default());
    }

    #[test]
    fn a_crowd_names_a_few() {
        let crowd = Crowd::of(&[1, 2, 3, 4, 5, 6]);
        assert_eq!(crowd.to_string(), "6 processes (pid 1, 2, 3, 4, …)");
        assert_eq!(Crowd::of(&[7]).to_string(), "1 process (pid 7)");
    }

    #[test]
    fn the_recorded_process_alone_is_killed() {
        let mut child = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let mut other = Command::new("/bin/sleep").arg("1000").spawn().unwrap();
        let stamp = ProcessStamp::of(child.id()).unwrap().unwrap();
        let suspect = Suspect { stamp: Some(&stamp), root: None, jailer: None };
        let deadline = Deadline::after(std::time::Duration::from_secs(60));
        let mut killed = HashSet::new();
        kill_all(suspect, &mut killed, deadline).unwrap();
        assert_eq!(killed, [child.id()].into());
        let mut again = HashSet::new();
        kill_all(suspect, &mut again, deadline).unwrap();
        assert!(again.is_empty());
        // It was a child of ours, and is reaped.
        assert!(child.try_wait().is_err());
        assert!(other.try_wait().unwrap().is_none());
        other.kill().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn a_uid_that_nobody_has_is_free() {
        assert!(uid_is_in_use(rustix::process::getuid().as_raw().max(1)).is_ok());
        assert!(!uid_is_in_use(3_999_999_999).unwrap());
    }
}

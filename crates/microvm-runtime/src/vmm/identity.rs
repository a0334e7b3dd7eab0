//! Proves that a process is a VMM of ours, by the user, the root and the executable that the kernel reports.

use jail_fs::{Dir, InodeId};

use super::procfs;
use crate::error::{Error, ErrorKind, Result};
use crate::sys;
use crate::text::escaped;

/// The properties of a jail's VMM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Expected {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// The inode of the VMM's root directory.
    pub(crate) root: InodeId,
    /// The name of the exec copy in that directory.
    pub(crate) exec_name: String,
    /// True if the VMM boots at once, from a configuration file.
    pub(crate) boots: bool,
}

impl Expected {
    /// Proves that this process has the jail's root, and the jail's user wholly.
    ///
    /// Whoever asks must hold the process by pidfd, or the answer may be about another.
    pub(crate) fn prove(&self, pid: u32) -> Result<()> {
        let root = InodeId::of(procfs::held(pid, "root")?)?;
        if root != self.root {
            return Err(doubt(
                pid,
                &format!("its root is inode {root}, the jail's is {}", self.root),
            ));
        }
        let status = procfs::bytes(pid, "status")?;
        for (key, id) in [("Uid", self.uid), ("Gid", self.gid)] {
            let ids = procfs::field(&status, key);
            if ids != [id; 4] {
                return Err(doubt(pid, &format!("its {key} are {ids:?}, {id} was asked for")));
            }
        }
        Ok(())
    }

    /// Proves that the process executes the exec copy and no longer the jailer, without capabilities. Call this
    /// function only at the start: later the jail's user may replace the copy, and may get all capabilities in a new
    /// user namespace.
    pub(super) fn prove_exec_copy(&self, pid: u32, root: &Dir) -> Result<()> {
        // One name, held and not followed.
        let copy = sys::file::open_path_at(root, self.exec_name.as_str()).map_err(|errno| {
            Error::new(ErrorKind::Identity, "find the exec copy")
                .path(&self.exec_name)
                .source_of(errno)
        })?;
        let (exe, copy) = (InodeId::of(procfs::held(pid, "exe")?)?, InodeId::of(copy)?);
        if exe != copy {
            return Err(doubt(pid, &format!("it executes inode {exe}, the exec copy is {copy}")));
        }
        let status = procfs::bytes(pid, "status")?;
        for key in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
            let set = procfs::value(&status, key).unwrap_or_default();
            if set.is_empty() || set.iter().any(|digit| *digit != b'0') {
                let set = escaped(set, 64);
                return Err(doubt(
                    pid,
                    &format!("its {key} is {set:?}, no capability is expected"),
                ));
            }
        }
        Ok(())
    }
}

/// The failure of a proof.
pub(super) fn doubt(pid: u32, because: &str) -> Error {
    Error::new(ErrorKind::Identity, format!("prove process {pid} to be the VMM")).because(because)
}

/// Lists the processes with this inode as root directory.
pub(crate) fn rooted_in(root: InodeId) -> Result<Vec<u32>> {
    procfs::processes()?
        .filter(|pid| pid.as_ref().map_or(true, |pid| is_rooted_in(*pid, root)))
        .collect()
}

/// Returns true if the process is alive and the process's root directory is this inode.
pub(crate) fn is_rooted_in(pid: u32, root: InodeId) -> bool {
    // One that has ended, and a kernel thread, has no root to look at.
    procfs::held(pid, "root").is_ok_and(|held| InodeId::of(held).is_ok_and(|id| id == root))
}

/// Returns true if the process is in the process group of `leader` (`getpgid(2)`). The call works for zombies too. The
/// kernel does not reuse the group's number while the group has a member.
pub(super) fn is_in_group(pid: u32, leader: u32) -> bool {
    sys::process_group(pid) == Some(leader)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;
    use std::os::unix::process::CommandExt as _;
    use std::process::Command;

    use super::super::pidfd;
    use super::*;

    fn here() -> InodeId {
        InodeId::of(procfs::held(std::process::id(), "root").unwrap()).unwrap()
    }

    #[test]
    fn processes_are_found_by_root() {
        let me = std::process::id();
        assert!(is_rooted_in(me, here()));
        assert!(rooted_in(here()).unwrap().contains(&me));
        let elsewhere = InodeId::of(procfs::held(me, "exe").unwrap()).unwrap();
        assert!(!is_rooted_in(me, elsewhere));
    }

    #[test]
    fn zombies_keep_their_group() {
        let mut child = Command::new("/bin/true").process_group(0).spawn().unwrap();
        let pidfd = pidfd::open(child.id()).unwrap().unwrap();
        assert!(pidfd::ended_by(pidfd.as_fd(), None).unwrap());
        assert!(is_in_group(child.id(), child.id()));
        assert!(!is_rooted_in(child.id(), here()), "its root is lost already");
        assert!(!is_in_group(std::process::id(), child.id()));
        child.wait().unwrap();
        assert!(!is_in_group(child.id(), child.id()));
    }

    #[test]
    fn other_users_and_roots_differ() {
        let me = std::process::id();
        let status = procfs::bytes(me, "status").unwrap();
        let id = |key| procfs::field(&status, key)[0];
        let right = Expected {
            uid: id("Uid"),
            gid: id("Gid"),
            root: here(),
            exec_name: "x".to_owned(),
            boots: false,
        };
        right.prove(me).unwrap();
        let other_user = Expected { uid: right.uid + 1, ..right.clone() };
        assert!(other_user.prove(me).unwrap_err().contains("Uid"));
        let exe = InodeId::of(procfs::held(me, "exe").unwrap()).unwrap();
        assert!(Expected { root: exe, ..right }.prove(me).unwrap_err().contains("root"));
    }
}

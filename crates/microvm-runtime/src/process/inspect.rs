//! What the kernel says of a running VMM.

use std::path::PathBuf;

use jail_fs::InodeId;
use rustix::fs::stat;
use serde::Serialize;

use super::procfs;
use crate::error::{ErrorKind, Failure, Result};

/// What the kernel says of a running VMM (`/proc/<pid>`), at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The real, effective, saved and filesystem uid.
    pub uids: [u32; 4],
    /// The real, effective, saved and filesystem gid.
    pub gids: [u32; 4],
    /// The root directory's inode.
    pub root: InodeId,
    /// Whether that is the jail's.
    pub root_is_jail: bool,
    /// Its pid in each namespace, the host's first.
    pub ns_pids: Vec<u32>,
    /// The seccomp mode of each thread, by the thread's name: 0 none, 2 a filter.
    pub seccomp: Vec<(String, u32)>,
    /// Open descriptors.
    pub descriptors: Vec<Descriptor>,
    /// Inode of its network namespace.
    pub network_namespace: u64,
    /// Inode of its pid namespace.
    pub pid_namespace: u64,
    /// Its control groups: the lines of `/proc/<pid>/cgroup`.
    pub cgroups: Vec<String>,
    /// Whether no exec can give it privileges any more (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
}

/// An open descriptor of the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Descriptor {
    /// Its number.
    pub number: u32,
    /// What it leads to, in the kernel's words.
    pub target: PathBuf,
    /// Whether that is a file on the jail's own mount.
    pub inside_jail: bool,
}

impl Inspection {
    pub(super) fn of(pid: u32, jail: InodeId) -> Result<Self> {
        let status = procfs::text(pid, "status")?;
        let root_fd = procfs::held(pid, "root")?;
        let root = InodeId::of(&root_fd)?;
        Ok(Self {
            uids: four(pid, &status, "Uid")?,
            gids: four(pid, &status, "Gid")?,
            root,
            root_is_jail: root == jail,
            ns_pids: procfs::field(&status, "NSpid"),
            seccomp: threads(pid),
            descriptors: descriptors(pid, mount_id(pid, &root_fd)?)?,
            network_namespace: namespace(pid, "net")?,
            pid_namespace: namespace(pid, "pid")?,
            cgroups: procfs::text(pid, "cgroup")?.lines().map(str::to_owned).collect(),
            no_new_privs: procfs::field(&status, "NoNewPrivs") == [1],
        })
    }
}

fn four(pid: u32, status: &str, key: &str) -> Result<[u32; 4]> {
    procfs::field(status, key).try_into().map_err(|found| {
        Failure::new(ErrorKind::Identity, format!("look at process {pid}"))
            .because(format!("its {key} are {found:?}"))
    })
}

fn namespace(pid: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/{name}");
    let status = stat(&path).map_err(|errno| {
        Failure::new(ErrorKind::Identity, "look at the VMM").path(path).source_of(errno)
    })?;
    Ok(status.st_ino)
}

/// Threads come and go; one that went is left out.
fn threads(pid: u32) -> Vec<(String, u32)> {
    let ids = procfs::numbers(&format!("/proc/{pid}/task")).unwrap_or_default();
    let thread = |id: u32| {
        let status = procfs::text(pid, &format!("task/{id}/status")).ok()?;
        let name = status.lines().find_map(|line| line.strip_prefix("Name:"))?.trim().to_owned();
        Some((name, *procfs::field(&status, "Seccomp").first()?))
    };
    ids.into_iter().filter_map(thread).collect()
}

fn descriptors(pid: u32, jail_mount: u64) -> Result<Vec<Descriptor>> {
    let path = format!("/proc/{pid}/fd");
    let numbers = procfs::numbers(&path).map_err(|error| {
        Failure::new(ErrorKind::Identity, "look at the VMM").path(path).source_of(error)
    })?;
    let descriptor = |number: u32| {
        let target = procfs::link(pid, &format!("fd/{number}")).ok()?;
        let info = procfs::text(pid, &format!("fdinfo/{number}")).ok()?;
        let mount = procfs::field(&info, "mnt_id").first().copied();
        Some(Descriptor { number, target, inside_jail: mount.map(u64::from) == Some(jail_mount) })
    };
    Ok(numbers.into_iter().filter_map(descriptor).collect())
}

fn mount_id(pid: u32, fd: &std::os::fd::OwnedFd) -> Result<u64> {
    use rustix::fs::{AtFlags, StatxFlags, statx};
    let status = statx(fd, "", AtFlags::EMPTY_PATH, StatxFlags::MNT_ID).map_err(|errno| {
        Failure::new(ErrorKind::Identity, "find the VMM's root mount")
            .path(format!("/proc/{pid}/root"))
            .source_of(errno)
    })?;
    Ok(status.stx_mnt_id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_can_be_looked_at() {
        let me = std::process::id();
        let root = InodeId::of(procfs::held(me, "root").unwrap()).unwrap();
        let seen = Inspection::of(me, root).unwrap();
        assert!(seen.root_is_jail);
        assert_eq!(seen.ns_pids.first(), Some(&me));
        assert!(seen.descriptors.iter().any(|descriptor| descriptor.number == 2));
        assert!(!seen.seccomp.is_empty() && !seen.cgroups.is_empty());
    }
}

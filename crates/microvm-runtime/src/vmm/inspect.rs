//! The kernel's view of a running VMM: [`Inspection`].

use std::os::unix::ffi::OsStrExt as _;

use jail_fs::InodeId;
use serde::Serialize;

use super::procfs;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::{self, FileStat};
use crate::text::escaped;

/// Threads, descriptors and control groups that are listed at most.
const MOST: usize = 1024;

/// The most bytes of a thread's name, and of the path of a control group or a descriptor.
const NAME: usize = 64;
const GROUP: usize = 4096;

/// The kernel's view of a running VMM (`/proc/<pid>`) at one moment.
///
/// A hostile VM chooses the names and numbers of its threads and descriptors: at most 1024 of each are listed, and names are
/// escaped and cut to 64 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Inspection {
    /// The real, effective, saved and filesystem uid.
    pub uids: [u32; 4],
    /// The real, effective, saved and filesystem gid.
    pub gids: [u32; 4],
    /// The root directory's inode.
    pub root: InodeId,
    /// True if the root directory is the jail's root.
    pub root_is_jail: bool,
    /// The VMM's pid in each pid namespace, the host's first.
    pub ns_pids: Vec<u32>,
    /// The seccomp mode of each thread, with the thread's name: 0 none, 2 a filter. A VMM that a launch started has mode 2 in
    /// any case, since the launch installs a filter of its own; the mode does not show Firecracker's filter.
    pub seccomp: Vec<(String, u32)>,
    /// Open descriptors.
    pub descriptors: Vec<Descriptor>,
    /// The inode of the network namespace.
    pub network_namespace: u64,
    /// The inode of the pid namespace.
    pub pid_namespace: u64,
    /// The control groups: the lines of `/proc/<pid>/cgroup`.
    pub cgroups: Vec<String>,
    /// True if no exec can add privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privs: bool,
    /// True if there are more threads or descriptors than listed.
    pub truncated: bool,
}

/// An open descriptor of the VMM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Descriptor {
    /// The descriptor's number.
    pub number: u32,
    /// The target, as the kernel names the file: escaped, and cut to 4096 bytes.
    pub target: String,
    /// True if the target is a file on the jail's mount.
    pub inside_jail: bool,
}

impl Inspection {
    pub(super) fn of(pid: u32, jail: InodeId) -> Result<Self> {
        let status = procfs::bytes(pid, "status")?;
        let root_fd = procfs::held(pid, "root")?;
        let root = InodeId::of(&root_fd)?;
        let threads = numbers(pid, "task")?;
        let open = numbers(pid, "fd")?;
        let truncated = threads.len() > MOST || open.len() > MOST;
        Ok(Self {
            uids: four(pid, &status, "Uid")?,
            gids: four(pid, &status, "Gid")?,
            root,
            root_is_jail: root == jail,
            ns_pids: procfs::field(&status, "NSpid"),
            seccomp: seccomp(pid, &threads),
            descriptors: descriptors(pid, &open, mount_id(pid, &root_fd)?),
            network_namespace: namespace(pid, "net")?,
            pid_namespace: namespace(pid, "pid")?,
            cgroups: procfs::bytes(pid, "cgroup")?
                .split_inclusive(|byte| *byte == b'\n')
                .take(MOST)
                .map(|line| escaped(line.trim_ascii_end(), GROUP))
                .collect(),
            no_new_privs: procfs::field(&status, "NoNewPrivs") == [1],
            truncated,
        })
    }
}

fn four(pid: u32, status: &[u8], key: &str) -> Result<[u32; 4]> {
    procfs::field(status, key).try_into().map_err(|found| {
        Error::new(ErrorKind::Identity, format!("look at process {pid}"))
            .because(format!("its {key} are {found:?}"))
    })
}

fn namespace(pid: u32, name: &str) -> Result<u64> {
    let path = format!("/proc/{pid}/ns/{name}");
    let namespace = FileStat::of_path(&path).map_err(|errno| {
        Error::new(ErrorKind::Identity, "look at the VMM").path(path).source_of(errno)
    })?;
    Ok(namespace.id().1)
}

/// The first numbers in a directory of the process, and one more if there are more.
fn numbers(pid: u32, name: &str) -> Result<Vec<u32>> {
    let path = format!("/proc/{pid}/{name}");
    let found = procfs::numbers(&path).map_err(|error| {
        Error::new(ErrorKind::Identity, "look at the VMM").path(path).source_of(error)
    })?;
    Ok(found.flatten().take(MOST + 1).collect())
}

/// Threads come and go; a thread that is gone is left out.
fn seccomp(pid: u32, threads: &[u32]) -> Vec<(String, u32)> {
    let thread = |id: &u32| {
        let status = procfs::bytes(pid, &format!("task/{id}/status")).ok()?;
        let name = procfs::value(&status, "Name")?;
        Some((escaped(name, NAME), *procfs::field(&status, "Seccomp").first()?))
    };
    threads.iter().take(MOST).filter_map(thread).collect()
}

/// Descriptors come and go; a descriptor that is gone is left out.
fn descriptors(pid: u32, open: &[u32], jail_mount: u64) -> Vec<Descriptor> {
    let descriptor = |number: &u32| {
        let number = *number;
        let target = procfs::link(pid, &format!("fd/{number}")).ok()?;
        let target = escaped(target.as_os_str().as_bytes(), GROUP);
        let info = procfs::bytes(pid, &format!("fdinfo/{number}")).ok()?;
        let mount = procfs::field(&info, "mnt_id").first().copied();
        Some(Descriptor { number, target, inside_jail: mount.map(u64::from) == Some(jail_mount) })
    };
    open.iter().take(MOST).filter_map(descriptor).collect()
}

fn mount_id(pid: u32, fd: &std::os::fd::OwnedFd) -> Result<u64> {
    file::mount_id(fd).map_err(|errno| {
        Error::new(ErrorKind::Identity, "find the VMM's root mount")
            .path(format!("/proc/{pid}/root"))
            .source_of(errno)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_process_is_inspected() {
        let me = std::process::id();
        let root = InodeId::of(procfs::held(me, "root").unwrap()).unwrap();
        let seen = Inspection::of(me, root).unwrap();
        assert!(seen.root_is_jail);
        assert_eq!(seen.ns_pids.first(), Some(&me));
        assert!(seen.descriptors.iter().any(|descriptor| descriptor.number == 2));
        assert!(!seen.seccomp.is_empty() && !seen.cgroups.is_empty());
    }

    #[test]
    fn row_77_names_of_descriptors_are_harmless() {
        let me = std::process::id();
        let root = InodeId::of(procfs::held(me, "root").unwrap()).unwrap();
        let name = std::ffi::CString::new(b"\xff\x1b]0;x\x07".as_slice()).unwrap();
        let _held = rustix::fs::memfd_create(&name, rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let seen = Inspection::of(me, root).unwrap();
        assert!(serde_json::to_string(&seen).unwrap().contains("]0;x"), "it is not there");
        let harmful = |descriptor: &Descriptor| descriptor.target.contains(char::is_control);
        assert!(!seen.descriptors.iter().any(harmful), "{seen:?}");
    }

    #[test]
    fn many_descriptors_are_cut() {
        // A process of its own: a descriptor number above the limit must not be this process's.
        let mut child = std::process::Command::new("/bin/bash")
            .args(["-c", "ulimit -n 4096; for ((n=10; n<1500; n++)); do eval \"exec $n</dev/null\"; done; echo; read"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0]).unwrap();
        let root = InodeId::of(procfs::held(child.id(), "root").unwrap()).unwrap();
        let seen = Inspection::of(child.id(), root).unwrap();
        assert!(seen.truncated && seen.descriptors.len() <= MOST, "{}", seen.descriptors.len());
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}

//! The processes that tests leave behind.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Has orphaned processes of our children become our own children, so that none is lost sight of
/// (`PR_SET_CHILD_SUBREAPER`).
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("become the reaper of orphans")
}

/// Ends every process that our children left behind, and names them.
///
/// Only to be called while none of our own children is running.
pub(crate) fn end_orphans() -> Result<Vec<String>> {
    let mut ended = Vec::new();
    loop {
        // Those that have ended by themselves left nothing but their status.
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => continue,
            Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Err(errno) => return Err(errno).context("look for orphans"),
        }
        for pid in children()? {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ended.push(format!("process {pid} ({})", name.trim()));
            // It is our child and not yet waited for: the pid is still its own.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
                .context("end an orphan")?;
            waitpid(pid, None).context("wait for an orphan")?;
        }
    }
}

/// The processes whose parent we are.
fn children() -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for task in fs::read_dir("/proc/self/task").context("list our threads")? {
        // A thread that ended meanwhile has given its children to another one.
        let Ok(list) = fs::read_to_string(task?.path().join("children")) else { continue };
        pids.extend(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    Ok(pids)
}

//! Processes that tests leave behind.

use std::fs;

use anyhow::{Context as _, Result};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// Makes this process the parent of every orphaned descendant, so that no process escapes (`PR_SET_CHILD_SUBREAPER`).
pub(crate) fn adopt_orphans() -> Result<()> {
    nix::sys::prctl::set_child_subreaper(true).context("become the reaper of orphans")
}

/// Kills every process that our children left behind, and returns the pids and names.
///
/// Call this function only if no direct child is running: all children are killed.
pub(crate) fn end_orphans() -> Result<Vec<String>> {
    let mut ended = Vec::new();
    loop {
        // An orphan that has exited already leaves only a status, and is not reported.
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => {}
            Ok(_) => continue,
            Err(nix::errno::Errno::ECHILD) => return Ok(ended),
            Err(errno) => return Err(errno).context("look for orphans"),
        }
        for pid in children()? {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            ended.push(format!("process {pid} ({})", name.trim()));
            // An unreaped child keeps the pid: the signal reaches no other process.
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL)
                .context("kill an orphan")?;
            waitpid(pid, None).context("wait for an orphan")?;
        }
    }
}

/// Returns the pids of our children.
fn children() -> Result<Vec<Pid>> {
    let mut pids = Vec::new();
    for task in fs::read_dir("/proc/self/task").context("list our threads")? {
        // A thread that has exited since the listing has passed its children to another thread.
        let Ok(list) = fs::read_to_string(task?.path().join("children")) else { continue };
        pids.extend(list.split_whitespace().filter_map(|pid| pid.parse().ok()).map(Pid::from_raw));
    }
    Ok(pids)
}

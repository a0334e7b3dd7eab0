//! Ending all that lives in a leaf.

use std::collections::BTreeSet;

use rustix::io::Errno;
use rustix::process::{Signal, pidfd_send_signal};

use crate::leaf::Leaf;
use crate::{Controller, Error, ErrorKind, Result, Version, wait};

/// How often what was missed is looked for again.
const ROUNDS: usize = 64;

impl Leaf {
    /// Sends SIGKILL to every process in the leaf and below it; none escapes by forking.
    ///
    /// v2: `cgroup.kill`. Where that is missing (v1, and v2 before Linux 5.14): freezes the leaf, kills each process by
    /// pidfd, thaws. v1 without a freezer forbids new tasks (`pids.max`) instead, as long as it takes.
    ///
    /// Returns once all are told; [`wait_empty`](Self::wait_empty) waits until they are gone. A leaf that is empty or was
    /// removed is fine.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where the caller itself is in the leaf;
    /// [`Foreign`](ErrorKind::Foreign) if the leaf is not its owner's.
    pub fn kill(&self) -> Result<()> {
        let members = match self.members() {
            Ok(members) => members,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error),
        };
        if members.contains(&std::process::id()) {
            return Err(Error::new(ErrorKind::InvalidInput, "kill the leaf")
                .path(self.paths().next().unwrap_or_default())
                .because("this process is in it")
                .hinted("move it to another group first"));
        }
        if self.owned_groups("kill the leaf")?.is_empty() {
            return Ok(());
        }
        if self.version() == Version::V2 {
            let [group] = self.groups.as_slice() else { return Ok(()) };
            match group.dir.write("cgroup.kill", "1") {
                Err(error) if error.errno() == Some(Errno::NOENT) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                done => return done,
            }
        }
        for _ in 0..ROUNDS {
            let hold = Hold::take(self)?;
            let told = self.tell_all()?;
            drop(hold);
            // A fork that was under way may show only now.
            if self.members()?.iter().all(|pid| told.contains(pid)) {
                return Ok(());
            }
        }
        Err(Error::new(ErrorKind::Busy, "kill the leaf")
            .path(self.paths().next().unwrap_or_default())
            .because("it makes processes faster than they can be killed")
            .hinted("mount the freezer or the pids hierarchy"))
    }

    /// SIGKILL for each member, until a look finds no new one.
    fn tell_all(&self) -> Result<BTreeSet<u32>> {
        let mut told = BTreeSet::new();
        for _ in 0..ROUNDS {
            let before = told.len();
            let new: Vec<_> = self.members()?.into_iter().filter(|pid| told.insert(*pid)).collect();
            for pids in new.chunks(wait::AT_ONCE) {
                self.tell(pids)?;
            }
            if told.len() == before {
                break;
            }
        }
        Ok(told)
    }

    fn tell(&self, pids: &[u32]) -> Result<()> {
        let mut held = Vec::new();
        for pid in pids {
            held.extend(wait::pidfd(*pid)?.map(|pidfd| (*pid, pidfd)));
        }
        // A pid may have become another process's before it was held: then it is not listed any more.
        let members = self.members()?;
        for (pid, pidfd) in held.into_iter().filter(|(pid, _)| members.contains(pid)) {
            match pidfd_send_signal(&pidfd, Signal::KILL) {
                Ok(()) | Err(Errno::SRCH) => {}
                Err(errno) => return Err(Error::call("kill", format!("process {pid}"), errno)),
            }
        }
        Ok(())
    }
}

/// Keeps the leaf from making new processes while it is held.
struct Hold<'a> {
    leaf: &'a Leaf,
    /// The file that lets go, and what to write to it.
    release: Option<(Controller, &'static str, String)>,
}

impl<'a> Hold<'a> {
    fn take(leaf: &'a Leaf) -> Result<Self> {
        let mut hold = Self { leaf, release: None };
        let ways = [
            (Controller::Freezer, "cgroup.freeze", "1"),
            (Controller::Freezer, "freezer.state", "FROZEN"),
            (Controller::Pids, "pids.max", "0"),
        ];
        for (controller, file, value) in ways {
            let Some(dir) = leaf.dir_of(controller) else { continue };
            let Some(before) = dir.read_if_there(file)? else { continue };
            let release = match file {
                "freezer.state" => "THAWED".to_owned(),
                _ => before.trim().to_owned(),
            };
            hold.release = Some((controller, file, release));
            dir.write(file, value)?;
            break;
        }
        Ok(hold)
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        if let Some((controller, file, value)) = &self.release
            && let Some(dir) = self.leaf.dir_of(*controller)
        {
            // Gone is let go.
            let _ = dir.write(file, value);
        }
    }
}

//! Stopping all that lives in a leaf, and letting it go on.

use std::time::{Duration, Instant};

use crate::leaf::Leaf;
use crate::{Controller, Error, ErrorKind, Result, Version, wait};

impl Leaf {
    /// Stops every process in the leaf and below it, and waits until all have stopped: v2 `cgroup.freeze`, v1
    /// `freezer.state`.
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) where one is still running after `timeout`: it waits in the kernel for something that
    /// does not come; the rest stay frozen. [`Unsupported`](ErrorKind::Unsupported) on v1 without a freezer.
    pub fn freeze(&self, timeout: Duration) -> Result<()> {
        let deadline = Instant::now() + timeout;
        let dir = self.freezer("freeze the leaf")?;
        let frozen = match self.version() {
            Version::V2 => {
                dir.write("cgroup.freeze", "1")?;
                wait::wait_event(dir, "frozen", 1, deadline)?
            }
            Version::V1 => {
                dir.write("freezer.state", "FROZEN")?;
                // v1 has no event for it: the state is worked out when it is read.
                loop {
                    let frozen = dir.read_text("freezer.state")?.trim() == "FROZEN";
                    if frozen || Instant::now() >= deadline {
                        break frozen;
                    }
                    wait::pause();
                }
            }
        };
        if frozen {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Timeout, "freeze the leaf")
            .path(dir.path())
            .because(format!("not all of it has stopped after {timeout:?}")))
    }

    /// Lets everything in the leaf go on.
    ///
    /// # Errors
    /// As [`freeze`](Self::freeze), but for the timeout.
    pub fn thaw(&self) -> Result<()> {
        let dir = self.freezer("thaw the leaf")?;
        match self.version() {
            Version::V2 => dir.write("cgroup.freeze", "0"),
            Version::V1 => dir.write("freezer.state", "THAWED"),
        }
    }

    /// Whether a process in the leaf cannot run, since the leaf or a parent is frozen: v2 `frozen` in `cgroup.events`, v1
    /// `freezer.state`. `false` on v1 without a freezer.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the leaf was removed.
    pub fn is_frozen(&self) -> Result<bool> {
        let Some(dir) = self.dir_of(Controller::Freezer) else { return Ok(false) };
        Ok(match self.version() {
            Version::V2 => dir.read_text("cgroup.events")?.lines().any(|line| line == "frozen 1"),
            Version::V1 => dir.read_text("freezer.state")?.trim() != "THAWED",
        })
    }

    fn freezer(&self, operation: &'static str) -> Result<&crate::dir::Dir> {
        self.dir_of(Controller::Freezer).ok_or_else(|| {
            Error::new(ErrorKind::Unsupported, operation)
                .path(self.paths().next().unwrap_or_default())
                .because("no freezer hierarchy is mounted")
        })
    }
}

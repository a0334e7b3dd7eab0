//! The events that wake a waiting launch: a file in the jail's root, the end of a process, the deadline.

use std::os::fd::{AsFd, BorrowedFd};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, DirWatch, Errno};

/// Events in a directory (`inotify(7)`), used only as hints when to look.
pub(super) struct Events {
    /// `None` where this user has no inotify instance left (128 by default): then only time wakes.
    inotify: Option<DirWatch>,
}

impl Events {
    /// Starts the watch; called before the start of the process that causes the events.
    pub(super) fn watch(dir: impl AsFd) -> Result<Self> {
        // Made: what the jailer makes once it is in the jail, the pid file and the API's socket. Written: the pid file.
        Ok(Self { inotify: DirWatch::new(dir).map_err(failed)? })
    }

    /// Returns true if there is no inotify instance, so that only time wakes the launch.
    pub(super) fn are_missing(&self) -> bool {
        self.inotify.is_none()
    }

    /// Waits for something to happen in the directory, for one of the processes to end, or for the deadline.
    pub(super) fn wait(
        &self,
        processes: &[BorrowedFd<'_>],
        deadline: impl Into<Deadline>,
    ) -> Result<()> {
        let watched = self.inotify.iter().map(DirWatch::as_fd).chain(processes.iter().copied());
        sys::poll_any(watched, deadline.into()).map_err(failed)?;
        if let Some(inotify) = &self.inotify {
            // Once: what is left wakes again, and a VM that makes events without an end does not keep us here.
            inotify.discard().map_err(failed)?;
        }
        Ok(())
    }
}

impl Events {
    /// Ends the watch: from here on time alone wakes.
    ///
    /// Closing an inotify descriptor waits until no one in the kernel can be using its watches any more, for some
    /// milliseconds (`synchronize_srcu`): a thread of its own does that, so that no launch waits for it.
    pub(super) fn end(&mut self) {
        if let Some(inotify) = self.inotify.take() {
            // Without a thread the descriptor goes with the closure, here.
            let _ = std::thread::Builder::new()
                .name("inotify-close".to_owned())
                .spawn(move || drop(inotify));
        }
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.end();
    }
}

fn failed(errno: Errno) -> Error {
    Error::new(ErrorKind::Filesystem, "watch the jail").source_of(errno)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::time::{Duration, Instant};

    use super::super::pidfd;
    use super::*;

    #[test]
    fn files_and_exits_wake() {
        let dir = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        let held = File::open(dir.path()).unwrap();
        let events = Events::watch(&held).unwrap();
        let hang = || Deadline::after(Duration::from_secs(60));

        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        std::fs::write(dir.path().join("api.sock"), "").unwrap();
        let begun = Instant::now();
        events.wait(&[], hang()).unwrap();

        let mut child = std::process::Command::new("/bin/true").spawn().unwrap();
        let pidfd = pidfd::open(child.id()).unwrap().unwrap();
        events.wait(&[pidfd.as_fd()], hang()).unwrap();
        child.wait().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60), "neither woke");

        // The deadline does, where nothing happens.
        events.wait(&[], Deadline::after(Duration::from_millis(1))).unwrap();
    }

    #[test]
    fn without_inotify_time_wakes() {
        let events = Events { inotify: None };
        assert!(events.are_missing());
        events.wait(&[], Deadline::after(Duration::from_millis(1))).unwrap();
    }
}

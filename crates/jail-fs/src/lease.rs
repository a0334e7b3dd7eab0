//! Exclusive leases, `flock(2)`.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};

use cap_std::fs::Dir;
use nix::errno::Errno;
use rustix::fs::{FlockOperation, flock};

use crate::artifact::Artifact;
use crate::error::{Error, Result, errno, locate, number};
use crate::open;

/// The exclusive use of a directory or of a disk image, as long as it lives.
///
/// Given back on drop, and by the kernel when the process ends in whatever way. Advisory: it keeps off those who ask.
///
/// # Caveats
/// On NFS and other network filesystems flock(2) may hold on this host only.
#[derive(Debug)]
pub struct Lease(OwnedFd);

impl Lease {
    /// Takes the lease of a directory; never waits.
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) while someone else has it, another lease of this very process included.
    pub fn try_acquire(dir: &Dir) -> Result<Self> {
        // A lease belongs to an open file description; one of its own, or a clone of `dir` would share it.
        Self::try_acquire_fd(dir)
    }

    pub(crate) fn try_acquire_fd(dir: impl AsFd) -> Result<Self> {
        let fd = open::directory(&dir, OsStr::new("."))
            .map_err(|errno| Error::os("lease", locate(dir), errno))?;
        Self::lock(fd)
    }

    /// Takes the lease of a regular file or block device; never waits. It outlives `artifact`.
    ///
    /// # Errors
    /// As [`Lease::try_acquire`].
    pub fn try_acquire_file(artifact: &Artifact) -> Result<Self> {
        Self::try_acquire_opened(artifact)
    }

    /// Of a descriptor that was opened for this call, or may share the lease.
    pub(crate) fn try_acquire_opened(fd: impl AsFd) -> Result<Self> {
        let clone = fd.as_fd().try_clone_to_owned();
        Self::lock(clone.map_err(|error| Error::os("lease", locate(&fd), number(&error)))?)
    }

    fn lock(fd: OwnedFd) -> Result<Self> {
        match flock(&fd, FlockOperation::NonBlockingLockExclusive).map_err(errno) {
            Ok(()) => Ok(Self(fd)),
            Err(Errno::EWOULDBLOCK) => Err(Error::os("lease", locate(fd), Errno::EWOULDBLOCK)
                .because("someone else holds it")
                .hinted("wait for the other to end")),
            Err(errno) => Err(Error::os("lease", locate(fd), errno)),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Explicitly: a clone of the descriptor may live on, in an artifact or for a moment in a forked child.
        let _ = flock(&self.0, FlockOperation::Unlock);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::testing::held;

    #[test]
    fn one_has_it_at_a_time() {
        let (_tmp, dir) = held();
        let lease = Lease::try_acquire(&dir).unwrap();
        let error = Lease::try_acquire(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("someone else"));
        drop(lease);
        drop(Lease::try_acquire(&dir).unwrap());
    }
}

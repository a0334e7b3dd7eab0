//! Exclusive leases of directories, `flock(2)`.

use std::path::PathBuf;

use crate::base::TrustedDir;
use crate::error::{Error, Result};
use crate::inode::Facts;
use crate::maker::Maker;
use crate::sys::{self, Errno};

/// The exclusive use of a directory, from [`try_acquire`](Self::try_acquire) until the drop (`flock(2)`).
///
/// The kernel releases a lease when its process ends, in whatever way. A lease belongs to the process that took it: a
/// copy that is dropped in a forked child releases nothing.
///
/// # Caveats
/// A lease keeps out only processes that ask for one. A child that was forked and did not exec keeps its parent's lease
/// after the parent has died. A lock that somebody took on a directory while
/// it was open to others lasts until that descriptor is closed. On NFS and other network filesystems flock(2) may hold on
/// this host only.
#[derive(Debug)]
pub struct Lease {
    dir: TrustedDir,
    taken_by: Maker,
}

impl Lease {
    /// Takes the lease of a directory; never waits.
    ///
    /// A directory that others can open is no lock, since anybody who can open a directory can lock it: its mode is first
    /// made 0700 (`fchmod(2)` on the descriptor that is then locked).
    ///
    /// # Errors
    /// [`Busy`](crate::ErrorKind::Busy) while the directory is leased, also by another lease of this process;
    /// [`Untrusted`](crate::ErrorKind::Untrusted) if others can change the directory;
    /// [`Privilege`](crate::ErrorKind::Privilege) if others can open it and its mode is not the caller's to change.
    pub fn try_acquire(dir: &TrustedDir) -> Result<Self> {
        // flock(2) locks an open file description: clones of `dir` would share the lease of theirs.
        let dir = dir.reopen()?;
        let failed = |errno| Error::os("lease", dir.path(), errno);
        if Facts::of_open(dir.dir()).map_err(failed)?.mode & 0o077 != 0 {
            sys::close_to_others(dir.dir()).map_err(failed)?;
        }
        Self::lock(dir)
    }

    /// Locks the very descriptor that `dir` holds, which was opened for this call.
    pub(crate) fn lock(dir: TrustedDir) -> Result<Self> {
        match sys::lock(dir.dir()) {
            Ok(()) => Ok(Self { dir, taken_by: Maker::this_process() }),
            Err(Errno::EWOULDBLOCK) => Err(Error::os("lease", dir.path(), Errno::EWOULDBLOCK)
                .because("another process or handle holds the lease")
                .hinted("Wait until the other lease is dropped or its process has ended.")),
            Err(errno) => Err(Error::os("lease", dir.path(), errno)),
        }
    }

    /// Returns the leased directory. Clones share its descriptor and may outlive the lease.
    #[must_use]
    pub fn dir(&self) -> &TrustedDir {
        &self.dir
    }

    /// Changes the path, after this crate has moved the directory.
    pub(crate) fn move_to(&mut self, path: PathBuf) {
        self.dir = self.dir.clone().moved_to(path);
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Explicitly, since a clone of the descriptor may live on, and in the process that took the lock only: a forked
        // child shares the open file description.
        if self.taken_by.is_this_process() {
            // Only a closed descriptor can fail here, and this one is open.
            let _ = sys::unlock(self.dir.dir());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;
    use crate::testing::trusted;

    #[test]
    fn a_lease_is_exclusive() {
        let (_tmp, dir) = trusted();
        let lease = Lease::try_acquire(&dir).unwrap();
        let error = Lease::try_acquire(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("holds the lease"), "{error}");
        drop(lease);
        drop(Lease::try_acquire(&dir).unwrap());
    }

    #[test]
    fn an_open_directory_is_closed() {
        let (_tmp, parent) = trusted();
        let child = crate::Name::try_from("child").unwrap();
        let dir = parent.create_child(&child).unwrap();
        assert_eq!(Facts::of(dir.dir()).unwrap().mode, 0o755);
        let lease = Lease::try_acquire(&dir).unwrap();
        assert_eq!(Facts::of(lease.dir().dir()).unwrap().mode, 0o700);
        assert_eq!((lease.dir().id(), lease.dir().path()), (dir.id(), dir.path()));
    }
}

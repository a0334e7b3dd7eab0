//! Events in a directory (`inotify(7)`).

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use rustix::fs::inotify::{self, CreateFlags, WatchFlags};

use super::Errno;

/// A watch of the files that are created or written in one directory.
#[derive(Debug)]
pub(crate) struct DirWatch(OwnedFd);

impl DirWatch {
    /// Starts the watch; `None` if this user has no instance or watch left.
    pub(crate) fn new(dir: impl AsFd) -> Result<Option<Self>, Errno> {
        let inotify = match inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK) {
            Ok(inotify) => inotify,
            Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        let what = WatchFlags::CREATE | WatchFlags::CLOSE_WRITE | WatchFlags::ONLYDIR;
        let path = format!("/proc/self/fd/{}", dir.as_fd().as_raw_fd());
        match inotify::add_watch(&inotify, path, what) {
            Ok(_) => Ok(Some(Self(inotify))),
            Err(Errno::NOSPC | Errno::NOMEM) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Discards the events of one read, at most 4 KiB.
    pub(crate) fn discard(&self) -> Result<(), Errno> {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 4096];
        match rustix::io::read(&self.0, &mut buffer) {
            Ok(_) | Err(Errno::AGAIN | Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl AsFd for DirWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

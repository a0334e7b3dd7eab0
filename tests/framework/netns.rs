//! A network namespace bound to a file, as `ip netns add` makes.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Scratch, sys};

/// A new, empty network namespace bound to a file, for `--netns`; unmounted on drop.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// Makes a network namespace bound to a file below `scratch`. A new thread calls unshare(2) and mount(2), so that
    /// the calling thread stays in the old namespace.
    ///
    /// # Panics
    /// If a call fails.
    #[must_use]
    pub fn new(scratch: &Scratch) -> Self {
        let path = scratch.join(crate::unique("netns"));
        File::create(&path).expect("make the file a network namespace is bound to");
        let bind = || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNET)?;
            mount(
                Some("/proc/thread-self/ns/net"),
                &path,
                None::<&str>,
                MsFlags::MS_BIND,
                None::<&str>,
            )
        };
        std::thread::scope(|scope| scope.spawn(bind).join())
            .expect("the thread ends")
            .unwrap_or_else(|err| panic!("make a network namespace: {err}"));
        let inode = std::fs::metadata(&path).expect("stat the bound namespace").ino();
        Self { path, inode }
    }

    /// Returns the path of the bound file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a tap device for the user `owner` in the namespace, as `ip tuntap add` does. Returns false if this machine
    /// has no tun driver. The kernel removes the device with the namespace.
    ///
    /// # Panics
    /// If the driver exists and a call fails.
    #[must_use]
    pub fn add_tap(&self, name: &str, owner: u32) -> bool {
        let Ok(tun) = File::options().read(true).write(true).open("/dev/net/tun") else {
            return false;
        };
        drop(tun);
        let make = || -> std::io::Result<()> {
            setns(File::open(&self.path)?, CloneFlags::CLONE_NEWNET)?;
            // Opened after setns: a tap device belongs to the namespace in which the descriptor was opened.
            let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
            Ok(sys::make_tap(&tun, name, owner)?)
        };
        std::thread::scope(|scope| scope.spawn(make).join())
            .expect("the thread ends")
            .unwrap_or_else(|err| panic!("make the tap device {name}: {err}"));
        true
    }

    /// Returns the namespace's inode on nsfs: the number in the link `/proc/<pid>/ns/net`.
    #[must_use]
    pub fn inode(&self) -> u64 {
        self.inode
    }
}

impl Drop for Netns {
    fn drop(&mut self) {
        if let Err(err) = umount2(&self.path, MntFlags::MNT_DETACH) {
            eprintln!("left behind: network namespace at {}: {err}", self.path.display());
        }
    }
}

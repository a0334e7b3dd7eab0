//! A network namespace with a name, as `ip netns add` makes.

use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};

use crate::{Scratch, sys};

/// A fresh, empty network namespace bound to a file, for `--netns`; gone on drop.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    inode: u64,
}

impl Netns {
    /// Makes one below `scratch`: a thread of its own leaves for it (unshare(2)) and binds it to a file (mount(2)).
    ///
    /// # Panics
    /// When it cannot be made.
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

    /// The file it is bound to.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a tap device in it that belongs to this user, as `ip tuntap add` does; `false` where this machine has no tun
    /// driver. It goes with the namespace.
    ///
    /// # Panics
    /// When there is a driver and it cannot be made.
    #[must_use]
    pub fn add_tap(&self, name: &str, owner: u32) -> bool {
        let Ok(tun) = File::options().read(true).write(true).open("/dev/net/tun") else {
            return false;
        };
        drop(tun);
        let make = || -> std::io::Result<()> {
            setns(File::open(&self.path)?, CloneFlags::CLONE_NEWNET)?;
            // Opened there: a tap device is made in the namespace its descriptor was opened in.
            let tun = File::options().read(true).write(true).open("/dev/net/tun")?;
            Ok(sys::make_tap(&tun, name, owner)?)
        };
        std::thread::scope(|scope| scope.spawn(make).join())
            .expect("the thread ends")
            .unwrap_or_else(|err| panic!("make the tap device {name}: {err}"));
        true
    }

    /// Its inode on nsfs: what `/proc/<pid>/ns/net` shows in brackets.
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

//! Inodes that this call created, the only ones whose owner it changes: rules 1 and 3 of the threat model.

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, makedev, mkdirat, mknodat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fchownat, linkat, unlinkat};
use rustix::fs::FileType;

use crate::error::{Error, ErrorKind, Result, locate};
use crate::inode::{Facts, InodeId};
use crate::name::Name;
use crate::open;
use crate::owner::Owner;

/// An inode that this call created, by descriptor, as it was right after.
#[derive(Debug)]
pub(crate) struct Fresh {
    fd: OwnedFd,
    facts: Facts,
}

/// A device node's type and number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) kind: FileType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Fresh {
    /// A file without a name, on `dir`'s filesystem (`O_TMPFILE`): gone with its descriptor until it is linked there, as
    /// `name` if all goes well.
    pub(crate) fn file(dir: impl AsFd, name: &Name, mode: u32) -> Result<Self> {
        let fd = open::beneath(
            &dir,
            ".".as_ref(),
            OFlag::O_TMPFILE | OFlag::O_RDWR,
            Mode::from_bits_truncate(mode),
        )
        .map_err(|errno| {
            let error = Error::at("create file", &dir, name, errno);
            match errno {
                Errno::EOPNOTSUPP | Errno::EISDIR => error
                    .of_kind(ErrorKind::Unsupported)
                    .hinted("choose a filesystem with O_TMPFILE: ext4, xfs, btrfs, tmpfs"),
                _ => error,
            }
        })?;
        let facts = Facts::of_open(&fd).map_err(|errno| Error::at("examine", &dir, name, errno))?;
        Ok(Self { fd, facts })
    }

    /// A file under its name, where nobody else can be (`O_EXCL`).
    pub(crate) fn named_file(dir: impl AsFd, name: &Name, mode: u32) -> Result<Self> {
        let fd = open::beneath(
            &dir,
            name.as_ref(),
            OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_RDWR,
            Mode::from_bits_truncate(mode),
        )
        .map_err(|errno| Error::at("create file", &dir, name, errno))?;
        let facts = Facts::of_open(&fd)
            .inspect_err(|_| take_back(&dir, name))
            .map_err(|errno| Error::at("examine", &dir, name, errno))?;
        Ok(Self { fd, facts })
    }

    /// An empty directory, 0700 at most.
    pub(crate) fn dir(parent: impl AsFd, name: &Name) -> Result<Self> {
        let failed = |errno| Error::at("create directory", &parent, name, errno);
        mkdirat(&parent, name.as_os_str(), Mode::S_IRWXU).map_err(failed)?;
        let adopt = || {
            let fd = open::directory(&parent, name.as_ref()).map_err(failed)?;
            Self::adopt(fd, &parent, name, |facts| facts.kind == FileType::Directory)
        };
        adopt().inspect_err(|error| {
            if error.kind() != ErrorKind::Replaced {
                take_back_dir(&parent, name);
            }
        })
    }

    /// A device node or a FIFO (`mknod(2)`), not opened: no driver hears of it.
    pub(crate) fn node(parent: impl AsFd, name: &Name, device: Device, mode: u32) -> Result<Self> {
        let failed = |errno| match device.kind {
            FileType::Fifo => Error::at("create FIFO", &parent, name, errno),
            _ => node_failed(&parent, name, errno),
        };
        let kind = match device.kind {
            FileType::BlockDevice => SFlag::S_IFBLK,
            FileType::Fifo => SFlag::S_IFIFO,
            _ => SFlag::S_IFCHR,
        };
        let number = makedev(device.major.into(), device.minor.into());
        mknodat(&parent, name.as_os_str(), kind, Mode::from_bits_truncate(mode), number)
            .map_err(failed)?;
        let adopt = || {
            let fd = open::handle(&parent, name.as_ref()).map_err(failed)?;
            Self::adopt(fd, &parent, name, |facts| {
                facts.kind == device.kind
                    && facts.rdev == (device.major, device.minor)
                    && facts.nlink == 1
            })
        };
        adopt().inspect_err(|error| {
            // What took its place is not ours to remove.
            if error.kind() != ErrorKind::Replaced {
                take_back(&parent, name);
            }
        })
    }

    /// A directory or node cannot be created and opened in one call. Where someone else may write to `parent`, what was
    /// opened counts only if it can be no one else's: the caller's, with one name, on the parent's own mount (which
    /// RESOLVE_NO_XDEV saw to).
    fn adopt(
        fd: OwnedFd,
        parent: impl AsFd,
        name: &Name,
        right: impl Fn(&Facts) -> bool,
    ) -> Result<Self> {
        let facts =
            Facts::of_open(&fd).map_err(|errno| Error::at("examine", &parent, name, errno))?;
        if facts.uid == Uid::effective().as_raw() && right(&facts) {
            return Ok(Self { fd, facts });
        }
        Err(Error::new(ErrorKind::Replaced, "create", locate(&parent).join(name)).because(format!(
            "{} of uid {} took its place",
            facts.noun(),
            facts.uid
        )))
    }

    /// Sets owner and mode, in this order, where umask, set-group-id or ACL of the directory made something else of them.
    /// A failure is told of `name` in `dir`, which it has or is to have.
    pub(crate) fn give(
        &self,
        (dir, name): (impl AsFd, &Name),
        owner: Owner,
        mode: u32,
    ) -> Result<()> {
        let handle = self.is_handle();
        if !self.facts.owner_is(owner) {
            let (uid, gid) = (Some(Uid::from_raw(owner.uid())), Some(Gid::from_raw(owner.gid())));
            let changed = match handle {
                true => fchownat(&self.fd, "", uid, gid, AtFlags::AT_EMPTY_PATH),
                false => fchown(&self.fd, uid, gid),
            };
            changed.map_err(|errno| Error::at("change owner of", &dir, name, errno))?;
        }
        self.set_mode((&dir, name), mode)
    }

    /// Sets the mode alone, of what stays the caller's.
    pub(crate) fn set_mode(&self, (dir, name): (impl AsFd, &Name), mode: u32) -> Result<()> {
        let handle = self.is_handle();
        if self.facts.mode != mode {
            let mode = Mode::from_bits_truncate(mode);
            let changed = match handle {
                // The door: this very descriptor, and no name in the directory.
                true => fchmodat(
                    AT_FDCWD,
                    procfs(&self.fd).as_str(),
                    mode,
                    FchmodatFlags::FollowSymlink,
                ),
                false => fchmod(&self.fd, mode),
            };
            changed.map_err(|errno| Error::at("change mode of", &dir, name, errno))?;
        }
        Ok(())
    }

    /// fchown(2) and fchmod(2) refuse a handle, which is all that a node is held by.
    fn is_handle(&self) -> bool {
        !matches!(self.facts.kind, FileType::RegularFile | FileType::Directory)
    }

    pub(crate) fn id(&self) -> InodeId {
        self.facts.id
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    pub(crate) fn into_file(self) -> File {
        self.fd.into()
    }
}

impl AsFd for Fresh {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// A further name for an open file (`linkat(2)` on its descriptor).
pub(crate) fn link(file: impl AsFd, dir: impl AsFd, name: &Name) -> std::result::Result<(), Errno> {
    match linkat(&file, "", &dir, name.as_os_str(), AtFlags::AT_EMPTY_PATH) {
        // Without CAP_DAC_READ_SEARCH; the same by way of procfs, which is allowed to all.
        Err(Errno::ENOENT) => linkat(
            AT_FDCWD,
            procfs(file).as_str(),
            &dir,
            name.as_os_str(),
            AtFlags::AT_SYMLINK_FOLLOW,
        ),
        answer => answer,
    }
}

/// Takes back what a failing call had made; on the way out of it, so it cannot fail itself.
pub(crate) fn take_back(dir: impl AsFd, name: &Name) {
    let _ = unlinkat(dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
}

/// The same for a directory, which has nothing in it yet.
pub(crate) fn take_back_dir(parent: impl AsFd, name: &Name) {
    let _ = unlinkat(parent, name.as_os_str(), UnlinkatFlags::RemoveDir);
}

/// The path of an open descriptor, which no rename changes.
pub(crate) fn procfs(fd: impl AsFd) -> String {
    format!("/proc/self/fd/{}", fd.as_fd().as_raw_fd())
}

fn node_failed(parent: impl AsFd, name: &Name, errno: Errno) -> Error {
    let error = Error::at("create device node", parent, name, errno);
    match errno {
        Errno::EPERM | Errno::EACCES => error
            .because("CAP_MKNOD is missing")
            .hinted("run as root, in the initial user namespace"),
        _ => error,
    }
}

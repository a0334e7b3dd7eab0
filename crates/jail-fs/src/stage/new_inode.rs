//! Inodes that this call created, which alone change owner: rules 1 and 3 of the threat model.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::base::{open_new_dir, refused_at};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{Facts, InodeId};
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno, FileType};

/// An inode that this call created: descriptor, and attributes right after.
#[derive(Debug)]
pub(crate) struct NewInode {
    fd: OwnedFd,
    facts: Facts,
}

/// The type and number of a device node or FIFO.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device {
    pub(crate) kind: FileType,
    pub(crate) major: u32,
    pub(crate) minor: u32,
}

impl Device {
    /// Recognises the node that was just made: a second name would be somebody else's.
    fn is_new(self, facts: &Facts) -> bool {
        facts.kind == self.kind && facts.rdev == (self.major, self.minor) && facts.nlink == 1
    }
}

impl NewInode {
    /// Creates a file without a name on `dir`'s filesystem (`O_TMPFILE`): gone with its descriptor until it is linked,
    /// as `name` if all goes well.
    pub(crate) fn file(dir: impl AsFd, name: &Name, mode: u32) -> Result<Self> {
        let fd = sys::create_unnamed(&dir, mode).map_err(|errno| match errno {
            Errno::EOPNOTSUPP | Errno::EISDIR => Error::at("create file", &dir, name, errno)
                .of_kind(ErrorKind::Unsupported)
                .hinted("Choose a filesystem with O_TMPFILE: ext4, xfs, btrfs or tmpfs."),
            _ => create_failed(&dir, name, errno),
        })?;
        let facts = Facts::of_open(&fd).map_err(|errno| Error::at("examine", &dir, name, errno))?;
        Ok(Self { fd, facts })
    }

    /// Creates the file `name`, in a directory that nobody else can reach (`O_EXCL`).
    pub(crate) fn named_file(dir: impl AsFd, name: &Name, mode: u32) -> Result<Self> {
        let fd = sys::create_named(&dir, name.as_os_str(), mode)
            .map_err(|errno| create_failed(&dir, name, errno))?;
        match Facts::of_open(&fd) {
            Ok(facts) => Ok(Self { fd, facts }),
            Err(errno) => Err(Error::at("examine", &dir, name, errno).after(take_back(&dir, name))),
        }
    }

    /// Creates an empty directory, 0700 at most (`mkdirat(2)`).
    pub(crate) fn dir(parent: impl AsFd, name: &Name) -> Result<Self> {
        let failed = |errno| Error::at("create directory", &parent, name, errno);
        sys::make_dir(&parent, name.as_os_str()).map_err(failed)?;
        let adopt = || {
            let fd = open_new_dir(&parent, name.as_os_str()).map_err(|errno| match errno {
                Errno::ENOSYS | Errno::EPERM => {
                    refused_at("create directory", sys::path_of(&parent).join(name), errno)
                }
                _ => failed(errno),
            })?;
            Self::adopt(fd, &parent, name, |facts| facts.kind == FileType::Directory)
        };
        adopt().map_err(|error| match error.kind() {
            // What took its place is not ours to remove.
            ErrorKind::Replaced => error,
            _ => error.after(take_back_dir(&parent, name)),
        })
    }

    /// Creates a device node or a FIFO (`mknodat(2)`), which is not opened: no driver hears of it.
    pub(crate) fn node(parent: impl AsFd, name: &Name, device: Device, mode: u32) -> Result<Self> {
        let numbers = (device.kind, device.major, device.minor);
        sys::make_node(&parent, name.as_os_str(), numbers, mode).map_err(|errno| {
            match device.kind {
                FileType::Fifo => Error::at("create FIFO", &parent, name, errno),
                _ => node_failed(&parent, name, errno),
            }
        })?;
        let adopt = || {
            let fd = sys::handle(&parent, name.as_os_str()).map_err(|errno| {
                refused_at("create device node", sys::path_of(&parent).join(name), errno)
            })?;
            Self::adopt(fd, &parent, name, |facts| device.is_new(facts))
        };
        adopt().map_err(|error| match error.kind() {
            ErrorKind::Replaced => error,
            _ => error.after(take_back(&parent, name)),
        })
    }

    /// Accepts what was opened under the new name as this call's own. A directory or node cannot be created and opened in
    /// one call; if somebody else may write to `parent`, the inode counts only if it can be nobody else's: the caller's,
    /// with one name, on the parent's own mount (which RESOLVE_NO_XDEV saw to).
    fn adopt(
        fd: OwnedFd,
        parent: impl AsFd,
        name: &Name,
        right: impl Fn(&Facts) -> bool,
    ) -> Result<Self> {
        let facts =
            Facts::of_open(&fd).map_err(|errno| Error::at("examine", &parent, name, errno))?;
        if facts.is_callers() && right(&facts) {
            return Ok(Self { fd, facts });
        }
        let place = sys::path_of(&parent).join(name);
        Err(Error::new(ErrorKind::Replaced, "create", place).because(format!(
            "{} of uid {} with {} names took its place",
            facts.noun(),
            facts.uid,
            facts.nlink
        )))
    }

    /// Sets owner and mode, in this order, where umask, set-group-id or ACL of the directory interfered. A
    /// failure names `name` in `dir`, which the inode has or is to have.
    pub(crate) fn give(
        &self,
        (dir, name): (impl AsFd, &Name),
        owner: Owner,
        mode: u32,
    ) -> Result<()> {
        if !self.facts.owner_is(owner) {
            let ids = (owner.uid(), owner.gid());
            let changed = match self.is_handle() {
                true => sys::set_owner_of_handle(&self.fd, ids),
                false => sys::set_owner(&self.fd, ids),
            };
            changed.map_err(|errno| change_owner_failed(&dir, name, owner, errno))?;
        }
        self.set_mode((&dir, name), mode)
    }

    /// Sets the mode alone, of what stays the caller's.
    pub(crate) fn set_mode(&self, (dir, name): (impl AsFd, &Name), mode: u32) -> Result<()> {
        if self.facts.mode == mode {
            return Ok(());
        }
        let changed = match self.is_handle() {
            true => sys::set_mode_of_handle(&self.fd, mode),
            false => sys::set_mode(&self.fd, mode),
        };
        changed.map_err(|errno| Error::at("change mode of", &dir, name, errno))
    }

    /// Recognises a handle (`O_PATH`), the descriptor of each node.
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

impl AsFd for NewInode {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Removes the name that a failing call had made. A name that is gone by now is fine.
pub(crate) fn take_back(dir: impl AsFd, name: &Name) -> Result<()> {
    removed(sys::unlink(&dir, name.as_os_str()), dir, name)
}

/// Removes the empty directory that a failing call had made.
pub(crate) fn take_back_dir(parent: impl AsFd, name: &Name) -> Result<()> {
    removed(sys::remove_dir(&parent, name.as_os_str()), parent, name)
}

fn removed(answer: std::result::Result<(), Errno>, dir: impl AsFd, name: &Name) -> Result<()> {
    match answer {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(Error::at("remove", dir, name, errno)),
    }
}

fn create_failed(dir: impl AsFd, name: &Name, errno: Errno) -> Error {
    let place = || sys::path_of(&dir).join(name);
    match errno {
        Errno::EPERM if Facts::of(&dir).is_ok_and(|facts| facts.immutable) => {
            Error::os("create file", place(), errno)
                .because("the directory is immutable")
                .hinted("Make the directory writable (chattr -ia), then try again.")
        }
        Errno::EPERM | Errno::ENOSYS => refused_at("create file", place(), errno),
        _ => Error::os("create file", place(), errno),
    }
}

/// The error of a change of owner.
pub(crate) fn change_owner_failed(
    dir: impl AsFd,
    name: &Name,
    owner: Owner,
    errno: Errno,
) -> Error {
    let error = Error::at("change owner of", dir, name, errno);
    match errno {
        Errno::EINVAL => error
            .because(format!("{owner} has no mapping in this user namespace"))
            .hinted("Choose a uid and gid that /proc/self/uid_map and gid_map list."),
        Errno::EPERM => error.because("CAP_CHOWN is missing").hinted("Run as root."),
        _ => error,
    }
}

fn node_failed(parent: impl AsFd, name: &Name, errno: Errno) -> Error {
    let error = Error::at("create device node", parent, name, errno);
    match errno {
        Errno::EPERM | Errno::EACCES if sys::can_make_nodes() == Some(true) => {
            error.because("the kernel refuses device nodes here").hinted(
                "Use the initial user namespace, and no seccomp filter or LSM that forbids mknod.",
            )
        }
        Errno::EPERM | Errno::EACCES => error
            .because("CAP_MKNOD is missing")
            .hinted("Run as root, in the initial user namespace."),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[expect(clippy::disallowed_methods, reason = "the host's own /dev")]
    #[test]
    fn refuses_nodes_with_two_names() {
        let null = sys::handle(File::open("/dev").unwrap(), "null".as_ref()).unwrap();
        let facts = Facts::of(null).unwrap();
        let device = Device { kind: FileType::CharacterDevice, major: 1, minor: 3 };
        assert!(device.is_new(&facts));
        assert!(!device.is_new(&Facts { nlink: 2, ..facts }));
        assert!(!device.is_new(&Facts { rdev: (1, 5), ..facts }));
        assert!(!device.is_new(&Facts { rdev: (3, 1), ..facts }));
        assert!(!device.is_new(&Facts { kind: FileType::BlockDevice, ..facts }));
    }
}

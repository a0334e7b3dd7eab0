//! Inodes: identity, content stamp and attributes, by `statx(2)`.

use std::ffi::OsStr;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;

use crate::error::{Error, Result};
use crate::owner::Owner;
use crate::sys::{self, Errno, FileType};

/// The identity of an inode: its filesystem's device number and its own number there.
///
/// Unique as long as the inode exists. Device numbers of btrfs, overlayfs and other filesystems without a device of
/// their own may change with a reboot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct InodeId {
    dev_major: u32,
    dev_minor: u32,
    ino: u64,
}

impl InodeId {
    /// Returns the identity of an open file or directory (`statx(2)`).
    ///
    /// # Errors
    /// The answer of statx(2), for example [`Unsupported`](crate::ErrorKind::Unsupported) under a seccomp filter.
    pub fn of(fd: impl AsFd) -> Result<Self> {
        Ok(Facts::of(fd)?.id)
    }

    /// Returns the major and minor number of the filesystem's device.
    #[must_use]
    pub const fn dev(self) -> (u32, u32) {
        (self.dev_major, self.dev_minor)
    }

    /// Returns the identity under another device number of the filesystem, as after a reboot.
    #[must_use]
    pub const fn on_device(self, (dev_major, dev_minor): (u32, u32)) -> Self {
        Self { dev_major, dev_minor, ..self }
    }

    /// Returns the inode's number in the filesystem.
    #[must_use]
    pub const fn ino(self) -> u64 {
        self.ino
    }
}

/// `major:minor:ino`.
impl fmt::Display for InodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.dev_major, self.dev_minor, self.ino)
    }
}

/// The state of a file at one moment: another stamp means other content.
///
/// Two writes within one tick of the kernel's clock can leave equal times on kernels before 6.13.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct SourceStamp {
    /// The inode.
    pub inode: InodeId,
    /// The size in bytes; 0 for a device.
    pub size: u64,
    /// The time of the last change of content.
    pub mtime: Timestamp,
    /// The time of the last change of content or attributes.
    pub ctime: Timestamp,
}

impl SourceStamp {
    /// Compares inode, size and mtime. The ctime is left out, since a hard link changes it too.
    #[must_use]
    pub fn same_content(&self, other: &Self) -> bool {
        (self.inode, self.size, self.mtime) == (other.inode, other.size, other.mtime)
    }
}

/// A moment of the kernel's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct Timestamp {
    /// Seconds since 1970 began.
    pub seconds: i64,
    /// Nanoseconds into that second.
    pub nanoseconds: u32,
}

/// The extended attribute that holds a file's ACL.
pub(crate) const ACL: &str = "system.posix_acl_access";

/// One statx(2).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) id: InodeId,
    pub(crate) kind: FileType,
    /// Permission bits with set-id and sticky, no type.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) nlink: u32,
    pub(crate) size: u64,
    /// Bytes that are really on the disk.
    pub(crate) allocated: u64,
    /// Major and minor of a device node.
    pub(crate) rdev: (u32, u32),
    pub(crate) mtime: Timestamp,
    pub(crate) ctime: Timestamp,
    /// The id of the mount on the way to the inode.
    pub(crate) mount: u64,
    pub(crate) immutable: bool,
    /// Set at the top of a mount.
    pub(crate) mount_root: bool,
}

impl Facts {
    /// Of an open descriptor.
    pub(crate) fn of(fd: impl AsFd) -> Result<Self> {
        Self::of_open(&fd).map_err(|errno| Error::os("examine", sys::path_of(fd), errno))
    }

    /// The same, for a caller with a better name for the inode than the kernel's.
    pub(crate) fn of_open(fd: impl AsFd) -> std::result::Result<Self, Errno> {
        sys::stat(fd).map(|stat| Self::from(&stat))
    }

    /// Of `name` in `dir`, a link itself.
    pub(crate) fn at(dir: impl AsFd, name: &OsStr) -> Result<Self> {
        sys::stat_at(&dir, name)
            .map(|stat| Self::from(&stat))
            .map_err(|errno| Error::at("examine", dir, name, errno))
    }

    /// Of what a path of the caller's leads to, a link itself.
    pub(crate) fn named(path: &Path) -> std::result::Result<Self, Errno> {
        sys::stat_path(path).map(|stat| Self::from(&stat))
    }

    /// Compares the inode's user with this process's.
    pub(crate) fn is_callers(&self) -> bool {
        self.uid == sys::effective_uid()
    }

    pub(crate) fn owner_is(&self, owner: Owner) -> bool {
        self.uid == owner.uid() && self.gid == owner.gid()
    }

    pub(crate) fn owner(&self) -> Owner {
        Owner::of_inode(self.uid, self.gid)
    }

    pub(crate) fn stamp(&self) -> SourceStamp {
        SourceStamp { inode: self.id, size: self.size, mtime: self.mtime, ctime: self.ctime }
    }

    /// Returns the rights of `user` by the mode alone: 4 to read, 2 to write, 1 to execute. ACLs are left out.
    pub(crate) fn rights(&self, user: Owner) -> u32 {
        let shift = if user.uid() == self.uid {
            6
        } else if user.gid() == self.gid {
            3
        } else {
            0
        };
        self.mode >> shift & 0o7
    }

    /// Names the type of the inode, for a message.
    pub(crate) fn noun(&self) -> &'static str {
        match self.kind {
            FileType::RegularFile => "a regular file",
            FileType::Directory => "a directory",
            FileType::Symlink => "a symbolic link",
            FileType::Fifo => "a fifo",
            FileType::Socket => "a socket",
            FileType::CharacterDevice => "a character device",
            FileType::BlockDevice => "a block device",
            _ => "of no known type",
        }
    }
}

impl From<&sys::Statx> for Facts {
    fn from(stat: &sys::Statx) -> Self {
        let time = |time: &sys::StatxTimestamp| Timestamp {
            seconds: time.tv_sec,
            nanoseconds: time.tv_nsec,
        };
        Self {
            id: InodeId {
                dev_major: stat.stx_dev_major,
                dev_minor: stat.stx_dev_minor,
                ino: stat.stx_ino,
            },
            kind: FileType::from_raw_mode(stat.stx_mode.into()),
            mode: u32::from(stat.stx_mode) & 0o7777,
            uid: stat.stx_uid,
            gid: stat.stx_gid,
            nlink: stat.stx_nlink,
            size: stat.stx_size,
            allocated: stat.stx_blocks.saturating_mul(512),
            rdev: (stat.stx_rdev_major, stat.stx_rdev_minor),
            mtime: time(&stat.stx_mtime),
            ctime: time(&stat.stx_ctime),
            mount: stat.stx_mnt_id,
            immutable: sys::is_immutable(stat),
            mount_root: sys::is_mount_root(stat),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_compares_each_part() {
        let facts = Facts::named(Path::new("/")).unwrap();
        let stamp = facts.stamp();
        let later = Timestamp { seconds: stamp.mtime.seconds + 1, ..stamp.mtime };
        let inode = InodeId { ino: stamp.inode.ino + 1, ..stamp.inode };
        assert!(stamp.same_content(&SourceStamp { ctime: later, ..stamp }));
        assert!(!stamp.same_content(&SourceStamp { mtime: later, ..stamp }));
        assert!(!stamp.same_content(&SourceStamp { size: stamp.size + 1, ..stamp }));
        assert!(!stamp.same_content(&SourceStamp { inode, ..stamp }));
    }

    #[test]
    fn callers_inodes_are_recognised() {
        let facts = Facts::named(Path::new("/")).unwrap();
        let own = Facts { uid: sys::effective_uid(), ..facts };
        assert!(own.is_callers());
        assert!(!Facts { uid: own.uid + 1, ..facts }.is_callers());
    }
}

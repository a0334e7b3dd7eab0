//! Sources: a file or a block device of the host, opened.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use cap_std::fs::Dir;

use crate::base::refused_at;
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{Facts, SourceStamp};
use crate::name::Name;
use crate::sys::{self, Errno, FileType};
use crate::text::Escaped;

/// A regular file or block device of the host that is to be staged, held by descriptor.
#[derive(Debug)]
pub struct Artifact {
    file: File,
    path: PathBuf,
    facts: Facts,
}

impl Artifact {
    /// Opens the file or block device at `path` (`open(2)` with `O_NOFOLLOW` and `O_NONBLOCK`).
    ///
    /// The path is the caller's own and is walked as given. Its last component is looked at first, so that no fifo or device
    /// is opened for reading; the opened inode must be the one that was looked at, and from then on only the descriptor
    /// counts. A block device is held by its node (`O_PATH`): no driver hears of it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), naming the path; [`Untrusted`](ErrorKind::Untrusted) for a link (with its
    /// target), a directory, fifo, socket or character device, and for a path that changes while it is opened.
    pub fn open(path: &Path) -> Result<Self> {
        let operation = "open source";
        let refuse = |because, hint| {
            Err(Error::new(ErrorKind::Untrusted, operation, path).because(because).hinted(hint))
        };
        let failed = |errno| Error::os(operation, path, errno);
        // The door: here the host's owner names a file of the host.
        let seen = Facts::named(path).map_err(failed)?;
        let fd = match seen.kind {
            FileType::RegularFile => sys::source_file(path),
            FileType::BlockDevice => sys::source_handle(path),
            FileType::Symlink => {
                let target = sys::read_link(None, path).map_err(failed)?;
                return refuse(
                    format!("it is a link to {}", Escaped(Path::new(&target))),
                    "Name the file itself.",
                );
            }
            _ => {
                return refuse(
                    format!("it is {}", seen.noun()),
                    "Name a regular file or a block device.",
                );
            }
        }
        .map_err(failed)?;
        let facts = Facts::of_open(&fd).map_err(failed)?;
        if facts.id != seen.id {
            return refuse(
                format!("it was inode {}, and is {}", seen.id, facts.id),
                "Keep others from changing it.",
            );
        }
        Ok(Self { file: fd.into(), path: path.to_owned(), facts })
    }

    /// Holds the Unix socket at `path` by its node (`open(2)` with `O_PATH` and `O_NOFOLLOW`): no connection is made.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), naming the path; [`Untrusted`](ErrorKind::Untrusted) for anything but a socket.
    pub fn open_socket(path: &Path) -> Result<Self> {
        let operation = "open source";
        let failed = |errno| Error::os(operation, path, errno);
        let fd = sys::source_handle(path).map_err(failed)?;
        let facts = Facts::of_open(&fd).map_err(failed)?;
        if facts.kind != FileType::Socket {
            return Err(Error::new(ErrorKind::Untrusted, operation, path)
                .because(format!("it is {}", facts.noun()))
                .hinted("Name the socket itself."));
        }
        Ok(Self { file: fd.into(), path: path.to_owned(), facts })
    }

    /// Opens the regular file `name` in `dir`, whose owner is not trusted (`openat2(2)`, as [`open_file`](crate::open_file)).
    /// A link, fifo, socket or device is refused, and cannot make this call wait.
    ///
    /// Any number of names is accepted: compare [`names`](Self::names), or the [`stamp`](Self::stamp) with a known inode.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound); [`Untrusted`](ErrorKind::Untrusted) for anything but a regular file;
    /// [`Mounted`](ErrorKind::Mounted) for a mount point.
    pub fn open_in(dir: &Dir, name: &Name) -> Result<Self> {
        let operation = "open file";
        let path = sys::path_of(dir).join(name);
        let fd = sys::beneath(dir, name.as_ref())
            .map_err(|errno| refused_at(operation, path.clone(), errno))?;
        let facts = Facts::of_open(&fd).map_err(|errno| Error::os(operation, &path, errno))?;
        if facts.kind != FileType::RegularFile {
            return Err(Error::new(ErrorKind::Untrusted, operation, path)
                .because(format!("it is {}", facts.noun())));
        }
        Ok(Self { file: fd.into(), path, facts })
    }

    /// Returns the path that was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the stamp of the file at the time of opening.
    #[must_use]
    pub fn stamp(&self) -> SourceStamp {
        self.facts.stamp()
    }

    /// Returns the number of names (hard links) of the file at the time of opening.
    #[must_use]
    pub fn names(&self) -> u32 {
        self.facts.nlink
    }

    /// Returns true if only root and the caller could write to the file at the time of opening, by owner and mode.
    #[must_use]
    pub fn is_protected(&self) -> bool {
        (self.facts.uid == 0 || self.facts.is_callers()) && self.facts.mode & 0o022 == 0
    }

    /// Returns major and minor number of a block device.
    #[must_use]
    pub fn device(&self) -> Option<(u32, u32)> {
        (self.facts.kind == FileType::BlockDevice).then_some(self.facts.rdev)
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.file.into()
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// Checks that the source is a regular file.
    pub(crate) fn expect_file(&self, operation: &'static str) -> Result<()> {
        let refused = |because: &str, hint| {
            Err(Error::new(ErrorKind::Untrusted, operation, &self.path)
                .because(because)
                .hinted(hint))
        };
        match self.facts.kind {
            FileType::BlockDevice => {
                refused("it is a block device", "Stage a block device with block_device.")
            }
            FileType::Socket => refused("it is a socket", "Stage a socket with socket."),
            _ => Ok(()),
        }
    }

    /// Checks that nobody wrote to the source since the opening.
    pub(crate) fn expect_unchanged(&self, operation: &'static str) -> Result<()> {
        let now = Facts::of(&self.file)?;
        if now.stamp() == self.facts.stamp() {
            return Ok(());
        }
        // A link made or removed meanwhile, as by another stager of the same image, is no change of content.
        if now.nlink != self.facts.nlink && now.stamp().same_content(&self.facts.stamp()) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::SourceChanged, operation, &self.path)
            .because(format!(
                "it was written to meanwhile: {:?} became {:?}",
                self.facts.stamp(),
                now.stamp()
            ))
            .hinted("Stage images that nobody writes to."))
    }

    /// Checks that the content ends at the size: files of procfs, sysfs and some FUSE filesystems do not.
    pub(crate) fn expect_end(&self, operation: &'static str) -> Result<()> {
        match self.file.read_at(&mut [0], self.facts.size) {
            Ok(0) => Ok(()),
            Ok(_) => Err(Error::new(ErrorKind::Untrusted, operation, &self.path)
                .because(format!("it has content after its size of {} bytes", self.facts.size))
                .hinted("Copy the content to a file on a disk or tmpfs, and stage that.")),
            Err(error) => Err(self.failed(operation, sys::number(&error))),
        }
    }

    pub(crate) fn failed(&self, operation: &'static str, errno: Errno) -> Error {
        Error::os(operation, &self.path, errno)
    }
}

impl AsFd for Artifact {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use super::*;
    use crate::testing::held;

    #[test]
    fn refuses_odd_sources() {
        let (tmp, _) = held();
        let path = |name: &str| tmp.path().join(name);
        std::fs::write(path("file"), "image").unwrap();
        let file = Artifact::open(&path("file")).unwrap();
        assert_eq!((file.stamp().size, file.device()), (5, None));

        std::os::unix::fs::symlink("file", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        for (bad, why) in [
            ("link", "a link to file"),
            ("fifo", "a fifo"),
            ("socket", "a socket"),
            ("", "a directory"),
        ] {
            let error = Artifact::open(&path(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted);
            assert!(error.to_string().contains(why) && error.hint().is_some(), "{error:?}");
        }
        assert!(
            Artifact::open(Path::new("/dev/null"))
                .unwrap_err()
                .to_string()
                .contains("a character device")
        );
        let error = Artifact::open(&path("none")).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::NotFound, path("none").as_path()));
    }

    #[test]
    fn untrusted_names_are_opened_safely() {
        let (tmp, dir) = held();
        let path = |name: &str| tmp.path().join(name);
        let name = |name: &str| Name::try_from(name).unwrap();
        std::fs::write(path("file"), "image").unwrap();
        std::fs::hard_link(path("file"), path("again")).unwrap();
        std::fs::set_permissions(path("file"), std::os::unix::fs::PermissionsExt::from_mode(0o620))
            .unwrap();
        let file = Artifact::open_in(&dir, &name("again")).unwrap();
        assert_eq!((file.stamp().size, file.names(), file.is_protected()), (5, 2, false));
        std::os::unix::fs::symlink("file", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::create_dir(path("dir")).unwrap();
        for bad in ["link", "fifo", "dir"] {
            let error = Artifact::open_in(&dir, &name(bad)).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{bad}: {error}");
        }
        let error = Artifact::open_in(&dir, &name("none")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_write_is_noticed() {
        let (tmp, _) = held();
        let path = tmp.path().join("file");
        std::fs::write(&path, "image").unwrap();
        let artifact = Artifact::open(&path).unwrap();
        artifact.expect_unchanged("stage").unwrap();
        std::fs::hard_link(&path, tmp.path().join("other")).unwrap();
        artifact.expect_unchanged("stage").unwrap();
        // A link beside a write is no excuse for the write.
        std::fs::hard_link(&path, tmp.path().join("third")).unwrap();
        std::fs::write(&path, "longer image").unwrap();
        assert_eq!(
            artifact.expect_unchanged("stage").unwrap_err().kind(),
            ErrorKind::SourceChanged
        );
    }
}

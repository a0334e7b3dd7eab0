//! What is to be staged: a file or a block device of the host, opened.

use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open, readlink};
use nix::sys::stat::Mode;
use rustix::fs::FileType;

use crate::error::{Error, ErrorKind, Result};
use crate::inode::{Facts, SourceStamp};
use crate::text::Escaped;

/// A source of the host, held by descriptor from the first look on: a regular file or a block device.
#[derive(Debug)]
pub struct Artifact {
    file: File,
    path: PathBuf,
    facts: Facts,
}

impl Artifact {
    /// Opens the file or block device at `path` (`open(2)` with `O_NOFOLLOW` and `O_NONBLOCK`).
    ///
    /// The path is the caller's word and is walked as such; but its last component is looked at first, so that nothing is
    /// opened for reading which acts or waits when it is, what is opened must be what was looked at, and the descriptor
    /// is all that counts from then on. A block device is held by its node (`O_PATH`): no driver hears of it.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), naming the path; [`Untrusted`](ErrorKind::Untrusted) for a link (with what it
    /// leads to), a directory, fifo, socket or character device, and for a path that changes while it is opened.
    pub fn open(path: &Path) -> Result<Self> {
        let operation = "open source";
        let refuse = |because, hint| {
            Err(Error::new(ErrorKind::Untrusted, operation, path).because(because).hinted(hint))
        };
        // The door: here the host's owner names a file of the host.
        let seen = Facts::named(path).map_err(|errno| Error::os(operation, path, errno))?;
        let flags = match seen.kind {
            FileType::RegularFile => OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY,
            FileType::BlockDevice => OFlag::O_PATH,
            FileType::Symlink => {
                let target = readlink(path).unwrap_or_default();
                return refuse(
                    format!("it is a link to {}", Escaped(Path::new(&target))),
                    "name the file itself",
                );
            }
            _ => {
                return refuse(
                    format!("it is {}", seen.noun()),
                    "name a regular file or a block device",
                );
            }
        };
        let fd = open(path, flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())
            .map_err(|errno| Error::os(operation, path, errno))?;
        let facts = Facts::of(&fd)?;
        if facts.id != seen.id {
            return refuse(
                format!("it was inode {}, and is {}", seen.id, facts.id),
                "keep others from changing it",
            );
        }
        Ok(Self { file: fd.into(), path: path.to_owned(), facts })
    }

    /// The path it was opened at.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The file as it was when it was opened.
    #[must_use]
    pub fn stamp(&self) -> SourceStamp {
        self.facts.stamp()
    }

    /// Major and minor number, of a block device.
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

    /// For the verbs that stage content.
    pub(crate) fn expect_file(&self, operation: &'static str) -> Result<()> {
        match self.device() {
            None => Ok(()),
            Some(_) => Err(Error::new(ErrorKind::Untrusted, operation, &self.path)
                .because("it is a block device")
                .hinted("stage a block device as one")),
        }
    }

    /// That no one wrote to it since it was opened.
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
            .hinted("stage images that no one writes to"))
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
    fn only_what_can_be_staged_is_opened() {
        let (tmp, _) = held();
        let path = |name: &str| tmp.path().join(name);
        std::fs::write(path("file"), "image").unwrap();
        let file = Artifact::open(&path("file")).unwrap();
        assert_eq!((file.stamp().size, file.device()), (5, None));

        std::os::unix::fs::symlink("file", path("link")).unwrap();
        nix::unistd::mkfifo(&path("fifo"), Mode::S_IRWXU).unwrap();
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
    fn a_write_is_noticed_and_a_link_is_not_one() {
        let (tmp, _) = held();
        let path = tmp.path().join("file");
        std::fs::write(&path, "image").unwrap();
        let artifact = Artifact::open(&path).unwrap();
        artifact.expect_unchanged("stage").unwrap();
        std::fs::hard_link(&path, tmp.path().join("other")).unwrap();
        artifact.expect_unchanged("stage").unwrap();
        std::fs::write(&path, "longer image").unwrap();
        assert_eq!(
            artifact.expect_unchanged("stage").unwrap_err().kind(),
            ErrorKind::SourceChanged
        );
    }
}

//! The destination of the guest's console: [`Console`].

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::Errno;
use crate::sys::file::{self, FileStat};

/// Bytes that are kept of a stream.
pub(super) const TAIL: usize = 64 << 10;

/// The destination of the guest's serial console, which is the VMM's stdout.
///
/// Firecracker's own log, and the stderr of the jailer and of Firecracker, always go to [`Vm::log`](crate::Vm::log).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Console(pub(super) Sink);

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Sink {
    Tail(usize),
    File(PathBuf),
    Null,
}

impl Console {
    /// Keeps the last `bytes` in this process, for [`Vm::console`](crate::Vm::console). The default, with 64 KiB.
    ///
    /// The console is a FIFO beside the jail. The VM runs on if nobody reads the FIFO, and a launcher that adopts the VM
    /// reads on.
    #[must_use]
    pub fn tail(bytes: usize) -> Self {
        Self(Sink::Tail(bytes))
    }

    /// Appends the console to the regular file at this absolute path; a missing file is created with mode 0600.
    ///
    /// The VMM has a separate, write-only file description. The guest decides the size of the file.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self(Sink::File(path.into()))
    }

    /// Throws the console away.
    #[must_use]
    pub fn null() -> Self {
        Self(Sink::Null)
    }

    /// Refuses, before anything is touched, a path that another process could not use.
    pub(crate) fn check(&self) -> Result<()> {
        let path = match &self.0 {
            Sink::File(path) => path,
            Sink::Tail(bytes) if *bytes > TAIL_MAX => {
                return Err(Error::invalid(
                    "plan the console",
                    format!("a tail of {bytes} bytes is more than {TAIL_MAX}"),
                )
                .hinted("Keep the whole output in a file: Console::file."));
            }
            _ => return Ok(()),
        };
        let because = match path.to_str() {
            None => "it is not UTF-8",
            Some(_) if !path.is_absolute() => "it is not absolute",
            Some(_) => return Ok(()),
        };
        Err(Error::invalid("plan the console", because)
            .path(path)
            .hinted("Give an absolute path of UTF-8."))
    }
}

/// The largest tail in bytes: the launcher keeps the tails of all its VMs in memory.
const TAIL_MAX: usize = 16 << 20;

impl Default for Console {
    fn default() -> Self {
        Self::tail(TAIL)
    }
}

/// Opens the null device.
pub(super) fn null() -> Result<OwnedFd> {
    file::open_null().map_err(|errno| {
        Error::new(ErrorKind::Spawn, "open the null device").path("/dev/null").source_of(errno)
    })
}

/// Opens a console file twice: for the VMM to append, and for this process to read the part that this VM writes.
pub(super) fn open_file(path: &Path) -> Result<(OwnedFd, Written)> {
    let failed = |errno: Errno| {
        let failure = Error::new(ErrorKind::Filesystem, "open the console file").path(path);
        match errno {
            Errno::LOOP => failure.hinted(
                "A symbolic link is not followed: name the file itself, or read `Vm::console`.",
            ),
            _ => failure,
        }
        .source_of(errno)
    };
    // A link is not followed: the file may lie where another user can plant one.
    let theirs = file::open_for_appending(path).map_err(failed)?;
    let stat = FileStat::of(&theirs).map_err(failed)?;
    if !stat.is_file() || !stat.has_one_name() {
        return Err(Error::invalid("open the console file", "it is no regular file with one name")
            .path(path)
            .hinted("Give each console a file of its own, or use Console::tail."));
    }
    let ours = file::open_unfollowed(path).map_err(failed)?;
    if FileStat::of(&ours).map_err(failed)?.id() != stat.id() {
        return Err(Error::new(ErrorKind::Untrusted, "open the console file")
            .path(path)
            .because("another file took its place"));
    }
    Ok((theirs, Written { file: ours, from: stat.size() }))
}

/// The part of a console file that one VM wrote.
#[derive(Debug)]
pub(super) struct Written {
    file: File,
    from: u64,
}

impl Written {
    pub(super) fn remaining_output(&self) -> String {
        read_tail(&self.file, self.from, TAIL as u64).unwrap_or_default()
    }
}

/// The last bytes of a file from `from` on, at most `keep`, as text. It may grow while it is read.
pub(crate) fn read_tail(file: &File, from: u64, keep: u64) -> io::Result<String> {
    use std::os::unix::fs::FileExt as _;
    let end = file.metadata()?.len();
    let begin = from.max(end.saturating_sub(keep));
    let length = usize::try_from(end.saturating_sub(begin)).unwrap_or(0);
    let mut bytes = vec![0; length];
    let mut filled = 0;
    while filled < length {
        match file.read_at(&mut bytes[filled..], begin + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&bytes[..filled]).into_owned())
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, OFlags, fcntl_getfl, mknodat};

    use super::*;

    #[test]
    fn row_87_tails_are_bounded() {
        Console::tail(TAIL_MAX).check().unwrap();
        for bytes in [TAIL_MAX + 1, usize::MAX] {
            assert_eq!(Console::tail(bytes).check().unwrap_err().kind(), ErrorKind::InvalidInput);
        }
    }

    #[test]
    fn row_50_console_file_is_write_only() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("console");
        let (first, written) = open_file(&path).unwrap();
        rustix::io::write(&first, b"an earlier tenant").unwrap();
        assert_eq!(written.remaining_output(), "an earlier tenant");
        let (second, written) = open_file(&path).unwrap();
        let flags = fcntl_getfl(&second).unwrap();
        assert_eq!(flags & OFlags::RWMODE, OFlags::WRONLY);
        assert!(flags.contains(OFlags::APPEND));
        assert_eq!(rustix::io::pread(&second, &mut [0; 8], 0), Err(Errno::BADF));
        rustix::io::write(&second, b"this one").unwrap();
        assert_eq!(written.remaining_output(), "this one", "the words of this VM alone");
    }

    #[test]
    fn only_plain_files_are_written() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        drop(open_file(&path("console")).unwrap());
        rustix::fs::symlink(path("console"), path("link")).unwrap();
        rustix::fs::link(path("console"), path("hard")).unwrap();
        mknodat(CWD, path("fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
        for bad in ["link", "hard", "fifo", "."] {
            assert!(open_file(&path(bad)).is_err(), "{bad}");
        }
        let error = open_file(Path::new("/dev/stdout")).unwrap_err();
        assert!(error.hint().is_some_and(|hint| hint.contains("symbolic link")), "{error}");
        assert!(Console::file("relative").check().is_err());
    }
}

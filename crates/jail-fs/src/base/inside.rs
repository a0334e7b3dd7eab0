//! Directories and files of any owner below a held directory.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::AsFd;
use std::path::{Component, Path, PathBuf};

use cap_std::fs::Dir;

use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::sys::{self, Errno, FileType};

fn refused(operation: &'static str, dir: impl AsFd, path: &Path, errno: Errno) -> Error {
    refused_at(operation, sys::path_of(dir).join(path), errno)
}

/// The error of a look-up by openat2(2) at `place`: a mount on the way is called that, and a refused call too.
pub(crate) fn refused_at(operation: &'static str, place: PathBuf, errno: Errno) -> Error {
    let error = Error::os(operation, &place, errno);
    match errno {
        Errno::EXDEV => error.over_mounts(vec![place]),
        Errno::ENXIO => error.of_kind(ErrorKind::Untrusted),
        // No file refuses to be opened for reading so: only a filter does.
        Errno::ENOSYS | Errno::EPERM => {
            error.of_kind(ErrorKind::Unsupported).because("openat2(2) is refused").hinted(
                "Allow openat2 in the seccomp filter of this process, or use Linux 5.8 or newer.",
            )
        }
        _ => error,
    }
}

/// Opens the directory at `path` below `dir` (`openat2(2)` with `RESOLVE_BENEATH`, `NO_SYMLINKS`, `NO_MAGICLINKS` and
/// `NO_XDEV`, and `O_NOFOLLOW`): no component may be a link, lead out or be a mount point.
///
/// # Errors
/// [`InvalidInput`](ErrorKind::InvalidInput) for an absolute path or one with `..`;
/// [`NotFound`](ErrorKind::NotFound); [`Untrusted`](ErrorKind::Untrusted) for a link or what is no directory;
/// [`Mounted`](ErrorKind::Mounted) where a mount is in the way.
pub fn open_dir(dir: &Dir, path: impl AsRef<Path>) -> Result<Dir> {
    let path = path.as_ref();
    expect_below("open directory", path)?;
    sys::directory(dir, path)
        .map(Dir::from)
        .map_err(|errno| refused("open directory", dir, path, errno))
}

/// Opens the regular file at `path` below `dir` for reading, as [`open_dir`] opens a directory.
///
/// A hostile owner of the tree cannot redirect this call or make it wait: a link, a FIFO, a socket, a device and a file
/// with another name are refused.
///
/// # Errors
/// As [`open_dir`]; [`Untrusted`](ErrorKind::Untrusted) for what is no regular file with one name.
pub fn open_file(dir: &Dir, path: impl AsRef<Path>) -> Result<File> {
    regular(dir, path.as_ref()).map(|(file, _)| file)
}

/// Reads the small regular file `path` below `dir`, opened as by [`open_file`].
///
/// # Errors
/// As [`open_file`]; [`Untrusted`](ErrorKind::Untrusted) also for more than `cap` bytes, of which no more are read.
pub fn read_small(dir: &Dir, path: impl AsRef<Path>, cap: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let (file, facts) = regular(dir, path)?;
    let too_long = |size: u64| {
        Error::new(ErrorKind::Untrusted, "read", sys::path_of(dir).join(path))
            .because(format!("it has {size} bytes or more, {cap} are allowed"))
    };
    if facts.size > cap {
        return Err(too_long(facts.size));
    }
    let mut bytes = Vec::with_capacity(usize::try_from(facts.size).unwrap_or(0));
    // It may grow while it is read.
    file.take(cap.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| Error::at("read", dir, path, sys::number(&error)))?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > cap { Err(too_long(length)) } else { Ok(bytes) }
}

/// Refuses paths that lead up; the kernel would answer as for a mount.
pub(crate) fn expect_below(operation: &'static str, path: &Path) -> Result<()> {
    let below =
        path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    match below {
        true => Ok(()),
        false => Err(Error::new(ErrorKind::InvalidInput, operation, path)
            .because("it does not lead down from the directory it is opened in")),
    }
}

fn regular(dir: &Dir, path: &Path) -> Result<(File, Facts)> {
    let operation = "open file";
    expect_below(operation, path)?;
    let fd = sys::beneath(dir, path).map_err(|errno| refused(operation, dir, path, errno))?;
    let facts = Facts::of(&fd)?;
    let because = match facts.kind {
        FileType::RegularFile if facts.nlink == 1 => return Ok((fd.into(), facts)),
        FileType::RegularFile => format!("it has {} names", facts.nlink),
        _ => format!("it is {}", facts.noun()),
    };
    Err(Error::new(ErrorKind::Untrusted, operation, sys::path_of(dir).join(path)).because(because))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::held;

    #[test]
    fn refuses_links_and_escapes() {
        let (tmp, dir) = held();
        std::fs::create_dir_all(tmp.path().join("a/b")).unwrap();
        std::fs::write(tmp.path().join("a/b/file"), "x").unwrap();
        symlink("a", tmp.path().join("link")).unwrap();
        symlink("a/b/file", tmp.path().join("file")).unwrap();
        assert_eq!(read_small(&dir, "a/b/file", 1).unwrap(), b"x");
        open_dir(&dir, "a/b").unwrap();
        for bad in ["link", "link/b"] {
            assert_eq!(open_dir(&dir, bad).unwrap_err().kind(), ErrorKind::Untrusted, "{bad}");
        }
        for bad in ["..", "a/../..", "a/../a", "/", "/etc"] {
            assert_eq!(open_dir(&dir, bad).unwrap_err().kind(), ErrorKind::InvalidInput, "{bad}");
            // And not for this check alone.
            assert!(bad == "a/../a" || sys::directory(&dir, bad).is_err(), "{bad}");
        }
        assert_eq!(open_dir(&dir, "a/b/file").unwrap_err().kind(), ErrorKind::Untrusted);
        assert_eq!(open_file(&dir, "file").unwrap_err().kind(), ErrorKind::Untrusted);
        assert_eq!(open_dir(&dir, "none").unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn reads_only_small_regular_files() {
        let (tmp, dir) = held();
        let path = |name: &str| tmp.path().join(name);
        std::fs::write(path("file"), "four").unwrap();
        assert_eq!(read_small(&dir, "file", 4).unwrap(), b"four");
        assert!(read_small(&dir, "file", 3).unwrap_err().to_string().contains("3 are allowed"));
        std::fs::hard_link(path("file"), path("again")).unwrap();
        assert!(read_small(&dir, "file", 4).unwrap_err().to_string().contains("2 names"));
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(read_small(&dir, "fifo", 4).unwrap_err().to_string().contains("a fifo"));
        let _socket = std::os::unix::net::UnixListener::bind(path("socket")).unwrap();
        assert_eq!(read_small(&dir, "socket", 4).unwrap_err().kind(), ErrorKind::Untrusted);
        // A file that grows, or has more than its size, is not read further.
        let proc = Dir::from_std_file(File::open("/proc/self").unwrap());
        let error = read_small(&proc, "status", 10).unwrap_err();
        assert!(error.to_string().contains("11 bytes or more, 10 are allowed"), "{error}");
        File::create(path("huge")).unwrap().set_len(1 << 40).unwrap();
        assert!(read_small(&dir, "huge", 4).unwrap_err().to_string().contains("1099511627776"));
    }
}

//! The one door to the filesystem: directories held by descriptor, and what lies below them.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{self, AtFlags, Mode, OFlags, ResolveFlags, StatxFlags, XattrFlags};
use rustix::io::Errno;

use crate::{Error, ErrorKind, Result, Version};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const MAGIC: [(Version, u64); 2] = [(Version::V1, 0x0027_e0eb), (Version::V2, 0x6367_7270)];
/// openat2(2) may ask to be called again while something else is renamed.
const AGAIN: usize = 128;
/// Never out, never over a link, never into another filesystem.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// A directory of a pseudo filesystem, held open; its path is for messages only. A clone shares the descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// Opens a directory that the system itself provides, such as `/proc/self` (open(2)).
    pub(crate) fn open_system(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match fs::open(&path, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(fd) => Ok(Self { fd: Arc::new(fd), path }),
            Err(errno) => Err(Error::call("open", path, errno)),
        }
    }

    /// Opens the mount point of a hierarchy, which must be one (open(2), fstatfs(2)).
    pub(crate) fn open_mount(point: &Path, version: Version) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = fs::open(point, flags, Mode::empty())
            .map_err(|errno| Error::call("open", point, errno))?;
        let dir = Self { fd: Arc::new(fd), path: point.to_owned() };
        if dir.filesystem()? == Some(version) {
            return Ok(dir);
        }
        Err(Error::new(ErrorKind::Unexpected, "open")
            .path(point)
            .because(format!("it is no control group {version} filesystem"))
            .hinted("is something else mounted over it?"))
    }

    fn filesystem(&self) -> Result<Option<Version>> {
        let stat = fs::fstatfs(&self.fd).map_err(|errno| self.failed("stat", "", errno))?;
        #[cfg(test)]
        if let Some(version) = crate::fake::version_of(self) {
            return Ok(Some(version));
        }
        let kind = u64::try_from(stat.f_type).unwrap_or_default();
        Ok(MAGIC.into_iter().find(|(_, magic)| *magic == kind).map(|(version, _)| version))
    }

    /// The id of the mount it was opened through, as in mountinfo; `None` before Linux 5.8 (statx(2)).
    pub(crate) fn mount_id(&self) -> Result<Option<u64>> {
        mount_id(&self.fd, Path::new(""), AtFlags::EMPTY_PATH)
            .map_err(|errno| self.failed("stat", "", errno))
    }

    /// The same of what is at `point` now, without opening it.
    pub(crate) fn mount_id_at(point: &Path) -> Result<Option<u64>> {
        mount_id(fs::CWD, point, AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT)
            .map_err(|errno| Error::call("stat", point, errno))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The error of an operation on `name` below it.
    pub(crate) fn failed(
        &self,
        operation: &'static str,
        name: impl AsRef<Path>,
        errno: Errno,
    ) -> Error {
        Error::call(operation, self.join(name), errno)
    }

    fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        match name.as_ref() {
            name if name.as_os_str().is_empty() => self.path.clone(),
            name => self.path.join(name),
        }
    }

    /// Opens what is at `path` below it (openat2(2)).
    fn open_below(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Errno> {
        let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        for _ in 0..AGAIN {
            match fs::openat2(&self.fd, path, flags, Mode::empty(), BENEATH) {
                Err(Errno::AGAIN | Errno::INTR) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }

    /// The directory at `path` below it; the empty path is the directory itself, opened again.
    pub(crate) fn open(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let below = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match self.open_below(below, OFlags::DIRECTORY) {
            Ok(fd) => Ok(Self { fd: Arc::new(fd), path: self.join(path) }),
            Err(errno) => Err(self.failed("open", path, errno)),
        }
    }

    /// The directory at `path` below it, unless there is none.
    pub(crate) fn open_if_there(&self, path: impl AsRef<Path>) -> Result<Option<Self>> {
        match self.open(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.errno() == Some(Errno::NOENT) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the file `name` to read, to be held (for events).
    pub(crate) fn open_file(&self, name: &str) -> Result<OwnedFd> {
        self.open_below(Path::new(name), OFlags::RDONLY)
            .map_err(|errno| self.failed("open", name, errno))
    }

    /// Opens the existing file `name` to write, to be held.
    pub(crate) fn open_to_write(&self, name: &str) -> Result<OwnedFd> {
        self.open_below(Path::new(name), OFlags::WRONLY)
            .map_err(|errno| self.failed("open", name, errno))
    }

    /// All of the file `name` (read(2)).
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Result<Vec<u8>> {
        let name = name.as_ref();
        let read = || {
            let file = self.open_below(name, OFlags::RDONLY)?;
            read_all(file.as_fd())
        };
        read().map_err(|errno| self.failed("read", name, errno))
    }

    /// The text of the file `name`; what is not UTF-8 becomes replacement characters.
    pub(crate) fn read_text(&self, name: impl AsRef<Path>) -> Result<String> {
        self.read(name).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    /// The same, or `None` where there is no such file, or the kernel has switched off what it shows.
    pub(crate) fn read_if_there(&self, name: &str) -> Result<Option<String>> {
        match self.read_text(name) {
            Ok(text) => Ok(Some(text)),
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::OPNOTSUPP)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes `value` to the existing file `name`, in one write(2), as the kernel's files want it.
    pub(crate) fn write(&self, name: &str, value: &str) -> Result<()> {
        let write = || {
            let file = self.open_below(Path::new(name), OFlags::WRONLY | OFlags::TRUNC)?;
            loop {
                match rustix::io::write(&file, value.as_bytes()) {
                    Err(Errno::INTR) => {}
                    Ok(written) if written < value.len() => return Err(Errno::IO),
                    Ok(_) => return Ok(()),
                    Err(errno) => return Err(errno),
                }
            }
        };
        write().map_err(|errno| self.failed("write", name, errno))
    }

    /// Makes the directory `name`; whether it was not there (mkdirat(2)).
    pub(crate) fn make(&self, name: impl AsRef<Path>) -> Result<bool> {
        let name = name.as_ref();
        match fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Ok(()) => {
                #[cfg(test)]
                crate::fake::fill(&self.open(name)?);
                Ok(true)
            }
            Err(Errno::EXIST) => Ok(false),
            Err(errno) => Err(self.failed("make", name, errno)),
        }
    }

    /// Removes the empty directory `name` (unlinkat(2)).
    pub(crate) fn remove(&self, name: impl AsRef<Path>) -> Result<()> {
        let name = name.as_ref();
        #[cfg(test)]
        if let Ok(dir) = self.open(name) {
            crate::fake::empty(&dir);
        }
        fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR)
            .map_err(|errno| self.failed("remove", name, errno))
    }

    /// The names of the directories in it (getdents64(2)).
    pub(crate) fn subdirs(&self) -> Result<Vec<PathBuf>> {
        let list = || {
            // Of its own, for its own place in the list.
            let fd = self.open_below(Path::new("."), OFlags::DIRECTORY)?;
            let mut names = Vec::new();
            for entry in fs::Dir::new(fd)? {
                let entry = entry?;
                let name = entry.file_name().to_bytes();
                if entry.file_type() == fs::FileType::Directory && name != b"." && name != b".." {
                    names.push(OsStr::from_bytes(name).into());
                }
            }
            Ok(names)
        };
        list().map_err(|errno| self.failed("list", "", errno))
    }

    /// Sets the extended attribute `name`, unless the directory has one of that name: `EEXIST` then (fsetxattr(2)).
    pub(crate) fn mark(&self, name: &str, value: &[u8]) -> Result<()> {
        #[cfg(test)]
        if let Some(done) = crate::fake::mark(self, name, value) {
            return done.map_err(|errno| self.failed("mark", "", errno));
        }
        fs::fsetxattr(&self.fd, name, value, XattrFlags::CREATE)
            .map_err(|errno| self.failed("mark", "", errno))
    }

    /// Reads the extended attribute `name`, of at most `most` bytes (fgetxattr(2)). A caller without CAP_SYS_ADMIN finds no
    /// `trusted` attribute.
    pub(crate) fn attribute(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        #[cfg(test)]
        if let Some(value) = crate::fake::attribute(self, name) {
            return Ok(value);
        }
        let mut value = vec![0; most];
        match fs::fgetxattr(&self.fd, name, value.as_mut_slice()) {
            Ok(length) => {
                value.truncate(length);
                Ok(Some(value))
            }
            Err(Errno::NODATA) => Ok(None),
            Err(errno) => Err(self.failed("read the mark of", "", errno)),
        }
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn mount_id(dir: impl AsFd, path: &Path, flags: AtFlags) -> Result<Option<u64>, Errno> {
    let stat = fs::statx(dir, path, flags, StatxFlags::MNT_ID)?;
    let known = stat.stx_mask & StatxFlags::MNT_ID.bits() != 0;
    Ok(known.then_some(stat.stx_mnt_id))
}

/// From the start, whatever was read before: the kernel makes the text anew.
pub(crate) fn read_all(file: BorrowedFd<'_>) -> Result<Vec<u8>, Errno> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let offset = u64::try_from(bytes.len()).map_err(|_| Errno::FBIG)?;
        match rustix::io::pread(file, &mut buffer, offset) {
            Ok(0) => return Ok(bytes),
            Ok(read) => bytes.extend_from_slice(buffer.get(..read).ok_or(Errno::IO)?),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

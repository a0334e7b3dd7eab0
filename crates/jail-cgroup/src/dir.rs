//! Directories of pseudo filesystems, held by descriptor, and bounded reads below them.

use std::ffi::{OsStr, OsString};
use std::ops::ControlFlow;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::sys::{self, Access, Errno};
use crate::{CgroupVersion, Error, ErrorKind, Result};

/// `CGROUP_SUPER_MAGIC` and `CGROUP2_SUPER_MAGIC` of `linux/magic.h`.
const MAGIC: [(CgroupVersion, u64); 2] =
    [(CgroupVersion::V1, 0x0027_e0eb), (CgroupVersion::V2, 0x6367_7270)];
/// Longest kernel file that is read whole, in bytes. Member lists, which can be longer, are streamed.
pub(crate) const FILE_MAX: usize = 1 << 20;
/// Longest line that is streamed, in bytes.
const LINE_MAX: usize = 256;

/// A directory held open; its path is for messages only. A clone shares the descriptor.
#[derive(Debug, Clone)]
pub(crate) struct Dir {
    fd: Arc<OwnedFd>,
    path: PathBuf,
}

impl Dir {
    /// Opens a directory that the system provides, such as `/proc/self` (open(2)).
    pub(crate) fn open_system(path: impl Into<PathBuf>) -> Result<Self> {
        let path = path.into();
        match sys::open_path(&path, true) {
            Ok(fd) => Ok(Self { fd: Arc::new(fd), path }),
            Err(errno) => Err(Error::call("open", path, errno)),
        }
    }

    /// Opens the mount point of a hierarchy and checks the filesystem (open(2), fstatfs(2)).
    pub(crate) fn open_mount(point: &Path, version: CgroupVersion) -> Result<Self> {
        let fd = sys::open_path(point, false).map_err(|errno| Error::call("open", point, errno))?;
        let dir = Self { fd: Arc::new(fd), path: point.to_owned() };
        if dir.version()? == Some(version) {
            return Ok(dir);
        }
        Err(Error::new(ErrorKind::Unexpected, "open")
            .at(point)
            .because(format!("this is no control group {version} filesystem"))
            .hinted("Check for another filesystem that is mounted over it."))
    }

    /// Returns the version of control groups that the filesystem is of; `None` for any other filesystem.
    fn version(&self) -> Result<Option<CgroupVersion>> {
        #[cfg(test)]
        if let Some(version) = crate::fake::version_of(&self.path) {
            return Ok(Some(version));
        }
        let found = sys::filesystem(&self.fd).map_err(|errno| self.failed("stat", "", errno))?;
        Ok(MAGIC.into_iter().find(|(_, magic)| *magic == found).map(|(version, _)| version))
    }

    /// Returns the id of the directory's mount, as in mountinfo; `None` before Linux 5.8.
    pub(crate) fn mount_id(&self) -> Result<Option<u64>> {
        sys::mount_id(&self.fd).map_err(|errno| self.failed("stat", "", errno))
    }

    /// Returns true if both descriptors are of the same directory (fstat(2)).
    pub(crate) fn is_same(&self, other: &Self) -> Result<bool> {
        Ok(self.id()? == other.id()?)
    }

    fn id(&self) -> Result<(u64, u64)> {
        sys::id(&self.fd).map_err(|errno| self.failed("stat", "", errno))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Builds the error of an operation on `name` below the directory.
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

    fn open_below(&self, path: &Path, access: Access) -> Result<OwnedFd, Errno> {
        sys::open_beneath(&self.fd, path, access)
    }

    /// Opens the directory at `path` below this one; the empty path opens this directory again.
    pub(crate) fn open(&self, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let below = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        match self.open_below(below, Access::Directory) {
            Ok(fd) => Ok(Self { fd: Arc::new(fd), path: self.join(path) }),
            Err(errno) => Err(self.failed("open", path, errno)),
        }
    }

    /// Opens the directory at `path`; `None` if it does not exist.
    pub(crate) fn open_if_exists(&self, path: impl AsRef<Path>) -> Result<Option<Self>> {
        match self.open(path) {
            Ok(dir) => Ok(Some(dir)),
            Err(error) if error.is_gone() || error.errno() == Some(Errno::NOTDIR) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens the existing file `name`, to be held.
    pub(crate) fn open_file(&self, name: &str, access: Access) -> Result<OwnedFd> {
        self.open_below(Path::new(name), access).map_err(|errno| self.failed("open", name, errno))
    }

    /// Reads the file `name` whole, up to [`FILE_MAX`] bytes.
    pub(crate) fn read(&self, name: impl AsRef<Path>) -> Result<Vec<u8>> {
        self.read_at_most(name, FILE_MAX)
    }

    /// Reads the file `name` whole, up to `most` bytes.
    pub(crate) fn read_at_most(&self, name: impl AsRef<Path>, most: usize) -> Result<Vec<u8>> {
        let name = name.as_ref();
        let file = self.open_below(name, Access::Read);
        let file = file.map_err(|errno| self.failed("read", name, errno))?;
        self.read_held(&file, name, most)
    }

    /// Reads an open file from the start, up to `most` bytes.
    pub(crate) fn read_held(
        &self,
        file: &OwnedFd,
        name: impl AsRef<Path>,
        most: usize,
    ) -> Result<Vec<u8>> {
        let name = name.as_ref();
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            let offset = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
            let read = sys::pread(file, &mut buffer, offset);
            let read = read.map_err(|errno| self.failed("read", name, errno))?;
            if read == 0 {
                return Ok(bytes);
            }
            bytes.extend_from_slice(buffer.get(..read).unwrap_or_default());
            if bytes.len() > most {
                return Err(Error::new(ErrorKind::Unexpected, "read")
                    .at(self.join(name))
                    .because(format!("the file is longer than {most} bytes")));
            }
        }
    }

    /// Reads the file `name`; `None` if the file does not exist or the kernel has switched it off.
    pub(crate) fn read_if_exists(&self, name: impl AsRef<Path>) -> Result<Option<Vec<u8>>> {
        match self.read(name) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::OPNOTSUPP)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Calls `each` with each line of the file `name`, with a fixed buffer, until `each` breaks. Lines longer than
    /// [`LINE_MAX`] are skipped.
    pub(crate) fn lines<B>(
        &self,
        name: impl AsRef<Path>,
        mut each: impl FnMut(&[u8]) -> ControlFlow<B>,
    ) -> Result<Option<B>> {
        let name = name.as_ref();
        let file = self.open_below(name, Access::Read);
        let file = file.map_err(|errno| self.failed("read", name, errno))?;
        let mut buffer = [0; 4096];
        let (mut line, mut too_long) = ([0; LINE_MAX], false);
        let mut length = 0;
        loop {
            let read = sys::read(&file, &mut buffer);
            let read = read.map_err(|errno| self.failed("read", name, errno))?;
            for byte in buffer.get(..read).unwrap_or_default() {
                if *byte != b'\n' {
                    match line.get_mut(length) {
                        Some(place) => *place = *byte,
                        None => too_long = true,
                    }
                    length += 1;
                    continue;
                }
                let whole = line.get(..length).filter(|_| !too_long);
                (length, too_long) = (0, false);
                if let Some(ControlFlow::Break(value)) = whole.map(&mut each) {
                    return Ok(Some(value));
                }
            }
            if read == 0 {
                let rest = line.get(..length).filter(|rest| !rest.is_empty() && !too_long);
                return Ok(rest.map(&mut each).and_then(ControlFlow::break_value));
            }
        }
    }

    /// Returns true if the file `name` has any byte; `None` if it does not exist or the kernel has switched it off.
    pub(crate) fn has_content(&self, name: &str) -> Result<Option<bool>> {
        match self.lines(name, |_| ControlFlow::Break(())) {
            Ok(found) => Ok(Some(found.is_some())),
            Err(error) if matches!(error.errno(), Some(Errno::NOENT | Errno::OPNOTSUPP)) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Writes `value` to the existing file `name` by one write(2).
    pub(crate) fn write(&self, name: impl AsRef<Path>, value: impl AsRef<[u8]>) -> Result<()> {
        let (name, value) = (name.as_ref(), value.as_ref());
        let file = self.open_below(name, Access::Write);
        #[cfg(test)]
        crate::fake::truncate(&self.join(name));
        file.and_then(|file| sys::write_once(file, value))
            .map_err(|errno| self.failed("write", name, errno))
    }

    /// Makes the directory `name` (mkdirat(2)). Returns false if it exists.
    pub(crate) fn make(&self, name: impl AsRef<Path>) -> Result<bool> {
        let name = name.as_ref();
        match sys::make_dir(&self.fd, name) {
            Ok(()) => {
                #[cfg(test)]
                crate::fake::fill(&self.join(name));
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
        crate::fake::empty(&self.join(name));
        sys::remove_dir(&self.fd, name).map_err(|errno| self.failed("remove", name, errno))
    }

    /// Calls `each` with the name of each directory in this one.
    pub(crate) fn for_each_subdir(&self, each: impl FnMut(&OsStr)) -> Result<()> {
        // Opened again, for a position of its own in the list.
        self.open_below(Path::new("."), Access::Directory)
            .and_then(|dir| sys::subdirs(dir, each))
            .map_err(|errno| self.failed("list", "", errno))
    }

    /// Returns the names of the directories in this one.
    pub(crate) fn subdirs(&self) -> Result<Vec<OsString>> {
        let mut names = Vec::new();
        self.for_each_subdir(|name| names.push(name.to_owned()))?;
        Ok(names)
    }

    /// Returns true if there are directories in this one. A removed directory has none.
    pub(crate) fn has_subdirs(&self) -> Result<bool> {
        match self.subdirs() {
            Ok(names) => Ok(!names.is_empty()),
            Err(error) if error.is_gone() => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Sets an extended attribute; fails with `EEXIST` if the directory has it (fsetxattr(2)).
    pub(crate) fn set_attribute(&self, name: &str, value: &[u8]) -> Result<()> {
        #[cfg(test)]
        if let Some(done) = crate::fake::set_attribute(&self.path, name, value) {
            return done.map_err(|errno| self.failed("mark", "", errno));
        }
        sys::set_attribute(&self.fd, name, value).map_err(|errno| self.failed("mark", "", errno))
    }

    /// Reads an extended attribute of at most `most` bytes (fgetxattr(2)). Without CAP_SYS_ADMIN, no `trusted`
    /// attribute exists.
    pub(crate) fn attribute(&self, name: &str, most: usize) -> Result<Option<Vec<u8>>> {
        #[cfg(test)]
        if let Some(value) = crate::fake::attribute(&self.path, name) {
            return Ok(value);
        }
        sys::attribute(&self.fd, name, most)
            .map_err(|errno| self.failed("read the mark of", "", errno))
    }
}

impl AsFd for Dir {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a file to read")]
        std::fs::write(dir.path().join("file"), bytes).unwrap();
        let held = Dir::open_system(dir.path()).unwrap();
        (dir, held)
    }

    #[test]
    fn reads_are_bounded() {
        let (_dir, held) = written(&[7; 5000]);
        assert_eq!(held.read_at_most("file", 5000).unwrap().len(), 5000);
        let error = held.read_at_most("file", 4999).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unexpected);
        assert!(error.to_string().contains("longer than 4999 bytes"), "{error}");
    }

    #[test]
    fn lines_are_streamed() {
        let long = vec![b'x'; 5000];
        let text = [b"1\n\n22\n", long.as_slice(), b"\n333\n\xff\n4"].concat();
        let (_dir, held) = written(&text);
        let mut lines = Vec::new();
        let ended = held.lines("file", |line| {
            lines.push(line.to_owned());
            ControlFlow::<()>::Continue(())
        });
        assert_eq!(ended.unwrap(), None);
        let expected: [&[u8]; 6] = [b"1", b"", b"22", b"333", b"\xff", b"4"];
        assert_eq!(lines, expected);
        let first = held.lines("file", |line| match line {
            b"22" => ControlFlow::Break(line.to_owned()),
            _ => ControlFlow::Continue(()),
        });
        assert_eq!(first.unwrap().as_deref(), Some(&b"22"[..]));
        assert_eq!(held.has_content("file").unwrap(), Some(true));
        assert_eq!(held.has_content("none").unwrap(), None);
    }
}

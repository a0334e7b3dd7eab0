//! Directories that no one else can change: rule 5 of the threat model.

use std::ffi::OsStr;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fchmod, mkdirat};
use nix::sys::statvfs::{FsFlags, fstatvfs};
use nix::unistd::{UnlinkatFlags, unlinkat};
use rustix::fs::{FileType, RawDir};

use crate::error::{Error, ErrorKind, Result, errno};
use crate::inode::{Facts, InodeId, has_xattr};
use crate::name::Name;
use crate::open;
use crate::owner::Owner;
use crate::text::Escaped;

/// A held directory which no one but root, or the caller who is not root, can change, move or replace.
///
/// It and each of its ancestors is a directory and no link, belongs to root (or to the caller), is not group- or
/// world-writable, has no set-group-id bit and no default ACL. An ancestor may be world-writable if it is root's and
/// sticky and the next component is root's or the caller's: so a base that root made below `/tmp` is fine, and `/tmp`
/// itself is not.
///
/// Cloning shares the descriptor.
#[derive(Debug, Clone)]
pub struct TrustedDir {
    dir: Arc<Dir>,
    path: PathBuf,
    id: InodeId,
    mount: u64,
}

/// How the filesystem is mounted that a directory is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MountFlags {
    /// Nothing can be written.
    pub read_only: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Set-id bits have no effect.
    pub nosuid: bool,
}

impl TrustedDir {
    /// Opens the directory at this absolute path, and checks it and each of its ancestors.
    ///
    /// The walk holds a descriptor of each component in turn and follows no link.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a relative path or one with `..`; [`NotFound`](ErrorKind::NotFound);
    /// [`Untrusted`](ErrorKind::Untrusted), naming the component and what is wrong with it.
    pub fn open(path: &Path) -> Result<Self> {
        Walk::new("open directory", path)?.run(Missing::Fail)
    }

    /// Opens the directory at this absolute path, after making what of it is missing: 0755 whatever the umask is, the
    /// caller's own (`mkdirat(2)`, `fchmod(2)`). Made or found, the same is checked as in [`TrustedDir::open`].
    ///
    /// # Errors
    /// As [`TrustedDir::open`], and what mkdirat(2) answers.
    pub fn create(path: &Path) -> Result<Self> {
        Walk::new("create directory", path)?.run(Missing::Make)
    }

    /// The held directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Its absolute path, without links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its identity.
    #[must_use]
    pub fn id(&self) -> InodeId {
        self.id
    }

    pub(crate) fn mount(&self) -> u64 {
        self.mount
    }

    /// Checks that the path still leads here: to this device, inode and mount, past ancestors that still hold what
    /// [`TrustedDir::open`] asks. To be called right before the path string is given away, as to a program's argv.
    ///
    /// # Errors
    /// [`Replaced`](ErrorKind::Replaced) where it leads elsewhere; else as [`TrustedDir::open`].
    pub fn verify_path(&self) -> Result<()> {
        let now = Self::open(&self.path)?;
        if now.id == self.id && now.mount == self.mount {
            return Ok(());
        }
        let because = format!(
            "it was inode {} on mount {}, and is {} on mount {}",
            self.id, self.mount, now.id, now.mount
        );
        Err(Error::new(ErrorKind::Replaced, "verify path", &self.path).because(because))
    }

    /// How its filesystem is mounted here (`fstatvfs(3)`).
    ///
    /// # Errors
    /// What fstatvfs answers.
    pub fn mount_flags(&self) -> Result<MountFlags> {
        let flags = fstatvfs(self.dir())
            .map_err(|errno| Error::os("examine the mount of", &self.path, errno))?
            .flags();
        Ok(MountFlags {
            read_only: flags.contains(FsFlags::ST_RDONLY),
            nodev: flags.contains(FsFlags::ST_NODEV),
            noexec: flags.contains(FsFlags::ST_NOEXEC),
            nosuid: flags.contains(FsFlags::ST_NOSUID),
        })
    }

    /// Opens the directory `name` in this one, which must hold what [`TrustedDir::open`] asks and be no mount point.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Untrusted`](ErrorKind::Untrusted), [`Mounted`](ErrorKind::Mounted).
    pub fn child(&self, name: &Name) -> Result<Self> {
        let fd = open::directory(self.dir(), name.as_ref())
            .map_err(|errno| open::refused_at("open directory", self.path.join(name), errno))?;
        self.checked_child(fd, name)
    }

    /// The same directory by a descriptor of its own, checked again.
    pub(crate) fn reopen(&self) -> Result<Self> {
        let (operation, path) = ("open directory", &self.path);
        let fd = open::directory(self.dir(), OsStr::new("."))
            .map_err(|errno| open::refused_at(operation, path.clone(), errno))?;
        let facts = vet(operation, path, &fd, Owner::caller(), true)?;
        refuse_writable(operation, path, &facts)?;
        Ok(Self::from_parts(fd, path.clone(), &facts))
    }

    fn checked_child(&self, fd: OwnedFd, name: &Name) -> Result<Self> {
        let (operation, path) = ("open directory", self.path.join(name));
        let facts = vet(operation, &path, &fd, Owner::caller(), true)?;
        refuse_writable(operation, &path, &facts)?;
        Ok(Self::from_parts(fd, path, &facts))
    }

    /// Opens the directory `name` in this one, after making it if it is missing, as [`TrustedDir::create`] does.
    ///
    /// # Errors
    /// As [`TrustedDir::child`], and what mkdirat(2) answers.
    pub fn create_child(&self, name: &Name) -> Result<Self> {
        match self.child(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            answer => return answer,
        }
        let made = make(self.dir().as_fd(), name.as_ref())
            .map_err(|errno| Error::os("create directory", self.path.join(name), errno))?;
        match made {
            Some(fd) => {
                self.checked_child(fd, name).inspect_err(|_| unmake(self.dir(), name.as_ref()))
            }
            None => self.child(name),
        }
    }

    /// The names in it, in no order (`getdents64(2)`).
    ///
    /// # Errors
    /// What getdents64 answers.
    pub fn entries(&self) -> Result<Vec<Name>> {
        let failed = |errno| Error::os("list", &self.path, errno);
        // A descriptor of its own, for it has a position.
        let fd = open::directory(self.dir(), OsStr::new(".")).map_err(failed)?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = RawDir::new(&fd, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(errno).map_err(failed)?;
            if let Ok(name) = Name::try_from(OsStr::from_bytes(entry.file_name().to_bytes())) {
                names.push(name);
            }
        }
        Ok(names)
    }

    /// The same directory, which this crate has moved.
    pub(crate) fn moved_to(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// A directory which this crate made in a trusted one, or has checked.
    pub(crate) fn from_parts(fd: OwnedFd, path: PathBuf, facts: &Facts) -> Self {
        Self { dir: Arc::new(fd.into()), path, id: facts.id, mount: facts.mount }
    }
}

/// Makes a directory in one that has been checked, whole or not at all. `None` where someone else made it first: it is
/// checked like any other then.
fn make(parent: impl AsFd, name: &OsStr) -> std::result::Result<Option<OwnedFd>, Errno> {
    match mkdirat(&parent, name, Mode::S_IRWXU) {
        Ok(()) => {}
        Err(Errno::EEXIST) => return Ok(None),
        Err(errno) => return Err(errno),
    }
    open::directory(&parent, name)
        .and_then(|made| fchmod(&made, Mode::from_bits_truncate(0o755)).map(|()| Some(made)))
        .inspect_err(|_| unmake(&parent, name))
}

/// Takes back a directory that was just made. Best effort, and one that is in use by now stays.
fn unmake(parent: impl AsFd, name: &OsStr) {
    let _ = unlinkat(parent, name, UnlinkatFlags::RemoveDir);
}

/// What to do about a component that is not there.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    Fail,
    Make,
}

/// From `/` to a directory, a component at a time.
struct Walk<'a> {
    operation: &'static str,
    names: Vec<&'a OsStr>,
    caller: Owner,
}

impl<'a> Walk<'a> {
    fn new(operation: &'static str, path: &'a Path) -> Result<Self> {
        let refuse =
            |because| Err(Error::new(ErrorKind::InvalidInput, operation, path).because(because));
        if !path.is_absolute() {
            return refuse("it is not absolute");
        }
        if path.as_os_str().as_bytes().contains(&0) {
            return refuse("it contains a NUL");
        }
        let mut names = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(name) => names.push(name),
                Component::RootDir | Component::CurDir => {}
                Component::ParentDir | Component::Prefix(_) => return refuse("it contains a '..'"),
            }
        }
        Ok(Self { operation, names, caller: Owner::caller() })
    }

    fn run(self, missing: Missing) -> Result<TrustedDir> {
        let mut path = PathBuf::from("/");
        // The door: the one directory that is opened by a path.
        let mut dir = open(&path, directory_flags(), Mode::empty())
            .map_err(|errno| Error::os(self.operation, &path, errno))?;
        let mut facts = vet(self.operation, &path, &dir, self.caller, self.names.is_empty())?;
        for (index, name) in self.names.iter().enumerate() {
            let last = index + 1 == self.names.len();
            let next = path.join(name);
            let failed = |errno| self.refused(&dir, &next, errno);
            self.allow_only_sticky(&path, &facts)?;
            let fd = match step(&dir, name, last) {
                Err(Errno::ENOENT) if missing == Missing::Make => {
                    make(&dir, name).and_then(|_| step(&dir, name, last))
                }
                answer => answer,
            }
            .map_err(failed)?;
            let next_facts = vet(self.operation, &next, &fd, self.caller, last)?;
            (dir, facts, path) = (fd, next_facts, next);
        }
        refuse_writable(self.operation, &path, &facts)?;
        Ok(TrustedDir::from_parts(dir, path, &facts))
    }

    /// An ancestor that others can write to keeps them off the next component only if it is root's and sticky; that
    /// component itself is root's or the caller's, or [`vet`] has refused it.
    fn allow_only_sticky(&self, path: &Path, facts: &Facts) -> Result<()> {
        if facts.uid == 0 && facts.mode & 0o1000 != 0 {
            return Ok(());
        }
        refuse_writable(self.operation, path, facts)
    }

    fn refused(&self, dir: &OwnedFd, path: &Path, errno: Errno) -> Error {
        let error = Error::os(self.operation, path, errno);
        // A link is refused as "no directory"; tell which it was and where to.
        let target = path.file_name().and_then(|name| nix::fcntl::readlinkat(dir, name).ok());
        match target {
            Some(target) => error
                .because(format!("it is a link to {}", Escaped(Path::new(&target))))
                .of_kind(ErrorKind::Untrusted)
                .hinted("name the directory itself"),
            None => error,
        }
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

/// One component, never `..`; a mount may begin here, so this is no openat2 with NO_XDEV.
fn step(dir: &OwnedFd, name: &OsStr, last: bool) -> std::result::Result<OwnedFd, Errno> {
    match openat(dir, name, directory_flags(), Mode::empty()) {
        // An ancestor that can be passed and not listed, such as a home directory 0711.
        Err(Errno::EACCES) if !last => {
            openat(dir, name, directory_flags() | OFlag::O_PATH, Mode::empty())
        }
        answer => answer,
    }
}

/// What holds for the base and for each ancestor.
fn vet(
    operation: &'static str,
    path: &Path,
    fd: &OwnedFd,
    caller: Owner,
    last: bool,
) -> Result<Facts> {
    let facts = Facts::of(fd)?;
    let refuse = |because: String, hint| {
        Err(Error::new(ErrorKind::Untrusted, operation, path).because(because).hinted(hint))
    };
    if facts.kind != FileType::Directory {
        return refuse(format!("it is {}", facts.noun()), "name a directory");
    }
    if facts.uid != 0 && facts.uid != caller.uid() {
        return refuse(
            format!("it belongs to uid {}", facts.uid),
            "choose a directory of root's, or chown it to root",
        );
    }
    if facts.mode & 0o2000 != 0 {
        return refuse("it has the set-group-id bit".to_owned(), "chmod g-s");
    }
    match has_xattr(fd, "system.posix_acl_default") {
        Ok(false) => Ok(facts),
        // Opened with O_PATH: it cannot be listed, and nothing will be made in it.
        Err(Errno::EBADF) if !last => Ok(facts),
        Ok(true) => refuse("it has a default ACL".to_owned(), "setfacl -k"),
        Err(errno) => Err(Error::os(operation, path, errno)),
    }
}

fn refuse_writable(operation: &'static str, path: &Path, facts: &Facts) -> Result<()> {
    if facts.mode & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Untrusted, operation, path)
        .because(format!("others than its owner can write to it (mode {:04o})", facts.mode))
        .hinted("chmod go-w, or choose another directory"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::testing::trusted;

    fn refusal(path: &Path) -> String {
        let error = TrustedDir::open(path).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
        assert!(error.hint().is_some(), "{error:?}");
        error.to_string()
    }

    #[test]
    fn a_base_is_made_whatever_is_missing() {
        let (tmp, _) = trusted();
        let path = tmp.path().join("a/b/c");
        assert_eq!(TrustedDir::open(&path).unwrap_err().kind(), ErrorKind::NotFound);
        let made = TrustedDir::create(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
        assert_eq!(made.id(), TrustedDir::open(&path).unwrap().id());
        assert_eq!(made.id(), TrustedDir::create(&path).unwrap().id());
        made.verify_path().unwrap();
        let child = made.create_child(&Name::try_from("d").unwrap()).unwrap();
        assert_eq!(child.path(), path.join("d"));
        assert_eq!(made.entries().unwrap(), [Name::try_from("d").unwrap()]);
    }

    #[test]
    fn what_others_can_change_is_refused() {
        let (tmp, _) = trusted();
        let base = tmp.path().join("base");
        fs::create_dir_all(base.join("below")).unwrap();
        for mode in [0o775, 0o757, 0o1777] {
            fs::set_permissions(&base, Permissions::from_mode(mode)).unwrap();
            assert!(refusal(&base).contains("can write to it"), "{mode:o}");
        }
        fs::set_permissions(&base, Permissions::from_mode(0o757)).unwrap();
        assert!(refusal(&base.join("below")).ends_with("(mode 0757)"));
        fs::set_permissions(&base, Permissions::from_mode(0o2755)).unwrap();
        assert!(refusal(&base.join("below")).contains("set-group-id"));
        fs::set_permissions(&base, Permissions::from_mode(0o755)).unwrap();
        TrustedDir::open(&base.join("below")).unwrap();
        assert!(TrustedDir::open(Path::new("/tmp")).is_err());
    }

    #[test]
    fn links_and_files_are_refused_by_name() {
        let (tmp, dir) = trusted();
        fs::create_dir(tmp.path().join("real")).unwrap();
        symlink("real", tmp.path().join("link")).unwrap();
        fs::write(tmp.path().join("file"), "").unwrap();
        assert!(refusal(&tmp.path().join("link")).ends_with("link: it is a link to real"));
        assert!(refusal(&tmp.path().join("link/below")).contains("it is a link to real"));
        assert!(refusal(&tmp.path().join("file")).contains("file"));
        assert_eq!(
            dir.child(&Name::try_from("link").unwrap()).unwrap_err().kind(),
            ErrorKind::Untrusted
        );
        for bad in ["relative", "/tmp/../etc", "/a\0b"] {
            assert_eq!(
                TrustedDir::open(Path::new(bad)).unwrap_err().kind(),
                ErrorKind::InvalidInput
            );
        }
    }

    #[test]
    fn a_base_that_was_replaced_is_noticed() {
        let (tmp, _) = trusted();
        let path = tmp.path().join("base");
        let base = TrustedDir::create(&path).unwrap();
        fs::rename(&path, tmp.path().join("away")).unwrap();
        assert_eq!(base.verify_path().unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        assert_eq!(base.verify_path().unwrap_err().kind(), ErrorKind::Replaced);
    }
}

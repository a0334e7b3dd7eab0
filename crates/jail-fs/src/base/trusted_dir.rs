//! Directories that nobody else can change: rule 5 of the threat model.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use cap_std::fs::Dir;

use super::inside::refused_at;
use super::new_dir::{make_dir, unmake_dir};
use super::vet::{refuse_writable, vet};
use super::walk::{Missing, walk};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{Facts, InodeId};
use crate::name::Name;
use crate::owner::Owner;
use crate::sys;

/// A held directory that only root, or an unprivileged caller, can change, move or replace.
///
/// The directory and each of its ancestors is no link, belongs to root (or to the caller), is not group- or
/// world-writable, has no set-group-id bit and no default ACL. An ancestor may be world-writable if it is root's and
/// sticky and the next component is root's or the caller's: a base that root made below `/tmp` is fine, and `/tmp`
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

/// The mount flags of a directory's filesystem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct MountFlags {
    /// The mount is read-only.
    pub read_only: bool,
    /// Device nodes cannot be opened.
    pub nodev: bool,
    /// Nothing can be executed.
    pub noexec: bool,
    /// Set-id bits have no effect.
    pub nosuid: bool,
}

impl TrustedDir {
    /// Opens the directory at an absolute path, and checks the directory and each ancestor (`openat(2)`, `statx(2)`).
    ///
    /// The walk holds a descriptor of each component in turn and follows no link.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a relative path or one with `..`; [`NotFound`](ErrorKind::NotFound);
    /// [`Untrusted`](ErrorKind::Untrusted), naming the component and the reason.
    pub fn open(path: &Path) -> Result<Self> {
        let found = walk("open directory", path, Missing::Fail)?;
        Ok(Self::from_parts(found.fd, found.path, &found.facts))
    }

    /// Opens the directory at an absolute path, after making the components that are missing: the caller's own, 0755
    /// whatever the umask is (`mkdirat(2)`, `fchmod(2)`). Each component is checked as in [`TrustedDir::open`].
    ///
    /// # Errors
    /// As [`TrustedDir::open`], and the answer of mkdirat(2).
    pub fn create(path: &Path) -> Result<Self> {
        let found = walk("create directory", path, Missing::Make)?;
        Ok(Self::from_parts(found.fd, found.path, &found.facts))
    }

    /// Returns the held directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        &self.dir
    }

    /// Returns the absolute path, which is free of links.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the directory's identity.
    #[must_use]
    pub fn id(&self) -> InodeId {
        self.id
    }

    pub(crate) fn mount(&self) -> u64 {
        self.mount
    }

    /// Checks that the path still leads to this device, inode and mount, past ancestors that still hold what
    /// [`TrustedDir::open`] asks. Call this right before the path is given away as a string, as in an argv.
    ///
    /// # Errors
    /// [`Replaced`](ErrorKind::Replaced) if the path leads elsewhere; else as [`TrustedDir::open`].
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

    /// Returns the flags that the directory's filesystem is mounted with (`fstatvfs(3)`).
    ///
    /// # Errors
    /// The answer of fstatvfs.
    pub fn mount_flags(&self) -> Result<MountFlags> {
        let [read_only, nodev, noexec, nosuid] = sys::mount_flags(self.dir())
            .map_err(|errno| Error::os("examine the mount of", &self.path, errno))?;
        Ok(MountFlags { read_only, nodev, noexec, nosuid })
    }

    /// Opens the directory `name` in this one, which must hold what [`TrustedDir::open`] asks and be no mount point.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound), [`Untrusted`](ErrorKind::Untrusted), [`Mounted`](ErrorKind::Mounted).
    pub fn child(&self, name: &Name) -> Result<Self> {
        let path = self.path.join(name);
        let fd = sys::directory(self.dir(), name)
            .map_err(|errno| refused_at("open directory", path.clone(), errno))?;
        Self::checked(fd, path)
    }

    /// Opens the same directory again: a descriptor of its own, checked again.
    pub(crate) fn reopen(&self) -> Result<Self> {
        let fd = sys::directory(self.dir(), ".")
            .map_err(|errno| refused_at("open directory", self.path.clone(), errno))?;
        Self::checked(fd, self.path.clone())
    }

    fn checked(fd: OwnedFd, path: PathBuf) -> Result<Self> {
        let operation = "open directory";
        let facts = vet(operation, &path, &fd, Owner::caller(), true)?;
        refuse_writable(operation, &path, &facts)?;
        Ok(Self::from_parts(fd, path, &facts))
    }

    /// Opens the directory `name` in this one, and makes a missing one as [`TrustedDir::create`] does.
    ///
    /// # Errors
    /// As [`TrustedDir::child`], and the answer of mkdirat(2).
    pub fn create_child(&self, name: &Name) -> Result<Self> {
        match self.child(name) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            answer => return answer,
        }
        let path = self.path.join(name);
        match make_dir("create directory", &path, self.dir(), name.as_os_str())? {
            Some(fd) => Self::checked(fd, path.clone())
                .map_err(|error| error.after(unmake_dir(&path, self.dir(), name.as_os_str()))),
            None => self.child(name),
        }
    }

    /// Lists the names in this directory, in no order (`getdents64(2)`).
    ///
    /// # Errors
    /// [`Untrusted`](ErrorKind::Untrusted) if others can change the directory by now; the answer of getdents64.
    pub fn entries(&self) -> Result<Vec<Name>> {
        let failed = |errno| Error::os("list", &self.path, errno);
        // A descriptor of its own, for it has a position. Names that others could have made are refused.
        let own = self.reopen()?;
        let mut buffer = Vec::with_capacity(32 << 10);
        let mut entries = sys::RawDir::new(own.dir(), buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry.map_err(|errno| failed(sys::errno(errno)))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(Name::try_from(OsStr::from_bytes(name))?);
            }
        }
        Ok(names)
    }

    /// The same directory, which this crate has moved.
    pub(crate) fn moved_to(self, path: PathBuf) -> Self {
        Self { path, ..self }
    }

    /// A directory that this crate made in a trusted one, or has checked.
    pub(crate) fn from_parts(fd: OwnedFd, path: PathBuf, facts: &Facts) -> Self {
        Self { dir: Arc::new(fd.into()), path, id: facts.id, mount: facts.mount }
    }
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
    fn missing_bases_are_made() {
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
    fn refuses_changeable_directories() {
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
    fn refuses_links_and_files() {
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
    fn a_replaced_base_is_noticed() {
        let (tmp, _) = trusted();
        let path = tmp.path().join("base");
        let base = TrustedDir::create(&path).unwrap();
        fs::rename(&path, tmp.path().join("away")).unwrap();
        assert_eq!(base.verify_path().unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        assert_eq!(base.verify_path().unwrap_err().kind(), ErrorKind::Replaced);
    }
}

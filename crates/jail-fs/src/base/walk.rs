//! The walk from `/` to a directory, one component at a time.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Component, Path, PathBuf};

use super::new_dir::make_dir;
use super::vet::{refuse_writable, vet};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::owner::Owner;
use crate::sys::{self, Access, Errno};
use crate::text::Escaped;

/// The treatment of a missing component.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Missing {
    Fail,
    Make,
}

/// The checked directory at the end of a walk.
pub(crate) struct Arrived {
    pub(crate) fd: OwnedFd,
    pub(crate) path: PathBuf,
    pub(crate) facts: Facts,
}

/// Walks to an absolute path, following no link.
pub(crate) fn walk(operation: &'static str, path: &Path, missing: Missing) -> Result<Arrived> {
    Walk { operation, caller: Owner::caller() }.run(&components(operation, path)?, missing)
}

fn components<'a>(operation: &'static str, path: &'a Path) -> Result<Vec<&'a OsStr>> {
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
    Ok(names)
}

struct Walk {
    operation: &'static str,
    caller: Owner,
}

impl Walk {
    fn run(&self, names: &[&OsStr], missing: Missing) -> Result<Arrived> {
        let mut path = PathBuf::from("/");
        // The door: the one directory that is opened by a path.
        let mut fd = sys::root(Access::List)
            .or_else(|errno| match errno {
                Errno::EACCES => sys::root(Access::Pass),
                errno => Err(errno),
            })
            .map_err(|errno| Error::os(self.operation, &path, errno))?;
        let mut facts = vet(self.operation, &path, &fd, self.caller, names.is_empty())?;
        for (index, name) in names.iter().enumerate() {
            let last = index + 1 == names.len();
            let next = path.join(name);
            self.allow_only_sticky(&path, &facts)?;
            let next_fd = match step(&fd, name, last) {
                Err(Errno::ENOENT) if missing == Missing::Make => {
                    make_dir(self.operation, &next, &fd, name)?;
                    step(&fd, name, last)
                }
                answer => answer,
            }
            .map_err(|errno| self.refused(&fd, &next, errno))?;
            facts = vet(self.operation, &next, &next_fd, self.caller, last)?;
            (fd, path) = (next_fd, next);
        }
        refuse_writable(self.operation, &path, &facts)?;
        Ok(Arrived { fd, path, facts })
    }

    /// Allows an ancestor that others can write to only if root owns a sticky one; the next
    /// component itself is root's or the caller's, or [`vet`] has refused it.
    fn allow_only_sticky(&self, path: &Path, facts: &Facts) -> Result<()> {
        if facts.uid == 0 && facts.mode & 0o1000 != 0 {
            return Ok(());
        }
        refuse_writable(self.operation, path, facts)
    }

    fn refused(&self, dir: &OwnedFd, path: &Path, errno: Errno) -> Error {
        let error = Error::os(self.operation, path, errno);
        // The kernel refuses a link as "no directory".
        let name = path.file_name().map(Path::new);
        match name.and_then(|name| sys::read_link(Some(dir), name).ok()) {
            Some(target) => error
                .because(format!("it is a link to {}", Escaped(Path::new(&target))))
                .of_kind(ErrorKind::Untrusted)
                .hinted("Name the directory itself."),
            None => error,
        }
    }
}

/// Opens one component, never `..`.
fn step(dir: &OwnedFd, name: &OsStr, last: bool) -> std::result::Result<OwnedFd, Errno> {
    match sys::component(dir, name, Access::List) {
        // An ancestor that can be passed and not listed, such as a home directory 0711.
        Err(Errno::EACCES) if !last => sys::component(dir, name, Access::Pass),
        answer => answer,
    }
}

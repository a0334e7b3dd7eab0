//! The host paths that the jailer gets by name, checked by name.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jail_cmd::HostPath;
use jail_fs::InodeId;
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::{self, FileStat};
use crate::sys::{self, Errno};

/// An executable regular file, resolved once: which file it was, under which canonical name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Program {
    path: HostPath,
    inode: InodeId,
}

impl Program {
    /// Finds the program: a bare name on the caller's `PATH`, a relative path from the working directory, each by its
    /// canonical name (`realpath(3)`), which the jailer names the jail after.
    pub(crate) fn find(what: &str, path: &Path) -> Result<Self> {
        let operation = format!("find the {what}");
        let is_bare = !path.as_os_str().as_bytes().contains(&b'/');
        let path = match is_bare {
            true => on_path(&operation, path)?,
            false => std::path::absolute(path).map_err(|error| {
                Error::invalid(&operation, "it is no path").path(path).source_of(error)
            })?,
        };
        let canonical = canonical(&operation, &path)?;
        let held = hold(&operation, canonical.as_path())?;
        let stat = FileStat::of(&held).map_err(|errno| {
            Error::new(ErrorKind::Filesystem, &operation).path(&path).source_of(errno)
        })?;
        if !stat.is_file() {
            return Err(Error::invalid(operation, "it is not a regular file")
                .path(path)
                .hinted("Name the program's own file."));
        }
        if stat.mode() & 0o111 == 0 {
            return Err(Error::invalid(operation, "it is not executable")
                .path(path)
                .hinted("Make the file executable (`chmod +x`), or name another."));
        }
        Ok(Self { path: canonical, inode: InodeId::of(&held)? })
    }

    /// Returns the canonical name.
    pub(crate) fn path(&self) -> &HostPath {
        &self.path
    }

    /// Returns the identity of the file.
    pub(crate) fn inode(&self) -> InodeId {
        self.inode
    }

    /// Refuses to go on if the name leads to another file by now.
    pub(crate) fn verify(&self, what: &str) -> Result<()> {
        let operation = format!("find the {what} again");
        let now = InodeId::of(hold(&operation, self.path.as_path())?)?;
        if now == self.inode {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Untrusted, operation)
            .path(&self.path)
            .because("it is another file than the plan was made for")
            .hinted("Plan the VM anew."))
    }
}

/// Searches the caller's `PATH` for a bare name.
fn on_path(operation: &str, name: &Path) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut there = std::env::split_paths(&path)
        // An empty entry means the working directory, where nobody looks for what root is to run.
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(name));
    there.find(|program| file::is_executable(program)).ok_or_else(|| {
        Error::new(ErrorKind::NotFound, operation)
            .path(name)
            .because("it is not on the PATH")
            .hinted("Install it, or name it by its path.")
    })
}

fn hold(operation: &str, path: &Path) -> Result<OwnedFd> {
    file::open_path(path)
        .map_err(|errno| Error::new(kind(errno), operation).path(path).source_of(errno))
}

/// The kind of a path that cannot be opened.
fn kind(errno: Errno) -> ErrorKind {
    match errno {
        Errno::NOENT | Errno::NOTDIR => ErrorKind::NotFound,
        Errno::ACCESS | Errno::PERM => ErrorKind::Privilege,
        _ => ErrorKind::Filesystem,
    }
}

/// Opens a network namespace: a file of nsfs, such as `/run/netns/<name>`, or a process's `/proc/<pid>/ns/net`.
pub(crate) fn open_network_namespace(path: &Path) -> Result<OwnedFd> {
    let operation = "find the network namespace";
    if !path.is_absolute() {
        return Err(Error::invalid(operation, "it is not absolute")
            .path(path)
            .hinted("Give an absolute path, such as `/run/netns/vm`."));
    }
    if path.to_str().is_none() {
        return Err(Error::invalid(operation, "it is not UTF-8")
            .path(path)
            .hinted("Rename the file: its path is recorded as JSON, which is UTF-8."));
    }
    let opened = file::open_for_reading(path).map_err(|error| {
        Error::new(kind(error), operation)
            .path(path)
            .source_of(error)
            .hinted("Make it first with `ip netns add`, or use `Network::Isolated`.")
    })?;
    let is_namespace = file::is_on(&opened, file::NSFS).map_err(|error| {
        Error::new(ErrorKind::Filesystem, operation).path(path).source_of(error)
    })?;
    let opened = OwnedFd::from(opened);
    if !is_namespace || !sys::is_network_namespace(&opened) {
        return Err(Error::invalid(operation, "it is not a network namespace")
            .path(path)
            .hinted("Make a namespace with `ip netns add`."));
    }
    Ok(opened)
}

fn canonical(operation: &str, path: &Path) -> Result<HostPath> {
    #[expect(
        clippy::disallowed_methods,
        reason = "the jailer canonicalises the name too; ours must agree"
    )]
    let canonical = std::fs::canonicalize(path).map_err(|error| {
        let kind = Errno::from_io_error(&error).map_or(ErrorKind::Filesystem, kind);
        Error::new(kind, operation).path(path).source_of(error)
    })?;
    HostPath::try_from(canonical)
        .map_err(|error| Error::new(ErrorKind::InvalidInput, operation).path(path).source_of(error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_executables_are_named() {
        for (path, word) in [
            ("no-such-firecracker", "PATH"),
            ("./no-such-firecracker", "No such file"),
            ("/does/not/exist", "No such file"),
            ("/proc", "regular file"),
            ("/proc/version", "not executable"),
        ] {
            let error = Program::find("exec file", Path::new(path)).unwrap_err();
            assert!(error.contains(word), "{}", &*error);
            assert!(error.contains(path.trim_start_matches("./")), "{}", &*error);
        }
        let this = Program::find("exec file", Path::new("/proc/self/exe")).unwrap();
        assert_eq!(this.path().as_path(), std::env::current_exe().unwrap());
    }

    #[test]
    fn bare_names_use_the_path() {
        let bare = Program::find("shell", Path::new("sh")).unwrap();
        let whole = Program::find("shell", bare.path().as_path()).unwrap();
        assert_eq!(bare, whole);
        assert!(bare.path().as_path().is_absolute());
    }

    #[test]
    fn a_relative_path_is_made_absolute() {
        let here = std::env::current_dir().unwrap();
        let up = "../".repeat(here.components().count());
        let found = Program::find("shell", &Path::new(&up).join("bin/sh")).unwrap();
        assert_eq!(found, Program::find("shell", Path::new("/bin/sh")).unwrap());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test's own files")]
    fn replaced_programs_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("jailer");
        std::fs::copy("/proc/self/exe", &path).unwrap();
        let found = Program::find("jailer", &path).unwrap();
        found.verify("jailer").unwrap();
        std::fs::copy("/proc/self/exe", dir.path().join("other")).unwrap();
        std::fs::rename(dir.path().join("other"), &path).unwrap();
        assert_eq!(found.verify("jailer").unwrap_err().kind(), ErrorKind::Untrusted);
    }

    #[test]
    fn namespaces_are_nsfs_files() {
        for bad in ["/proc/version", "/proc/self/ns/pid", "/etc"] {
            let error = open_network_namespace(Path::new(bad)).unwrap_err();
            assert!(error.contains("not a network namespace"), "{}", &*error);
        }
        assert!(open_network_namespace(Path::new("/run/netns/none-such")).is_err());
        assert!(open_network_namespace(Path::new("netns")).is_err());
    }
}

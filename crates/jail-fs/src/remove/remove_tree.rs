//! Removing a whole tree: rules 8 and 9 of the threat model.

use std::os::fd::OwnedFd;
use std::path::Path;

use super::emptier::{OPERATION, empty_and_remove};
use super::mounts;
use super::report::RemoveReport;
use crate::base::{TrustedDir, refused_at};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{Facts, InodeId};
use crate::name::Name;
use crate::sys::{self, Errno};
use crate::unique::unique;

/// Prefix of the names of trees that are being removed.
pub(crate) const TRASH: &str = ".trash-";

/// Removes the directory `name` in `parent` with all content. A missing directory is fine.
///
/// The tree is looked through for mounts, moved aside by one rename, and emptied: by descriptor, following no link and
/// crossing no mount, with five descriptors and constant memory however deep it is, for a directory that is not empty
/// is lifted to the top (`renameat2(2)`) and never descended from.
///
/// `expected` is the inode recorded when the tree was made: a tree that has taken its place is left alone.
///
/// # Errors
/// [`Mounted`](ErrorKind::Mounted), with the list, before anything is touched; [`Replaced`](ErrorKind::Replaced) for
/// another inode than `expected`; [`Untrusted`](ErrorKind::Untrusted) if `name` is no directory;
/// [`Busy`](ErrorKind::Busy) if processes keep filling it; [`Privilege`](ErrorKind::Privilege) at an immutable file.
/// The rest of the tree stays aside, at the error's path, until [`sweep`](crate::sweep) finds it.
///
/// # Privileges
/// `CAP_DAC_OVERRIDE` and `CAP_FOWNER` for what others own.
pub fn remove_tree(
    parent: &TrustedDir,
    name: &Name,
    expected: Option<InodeId>,
) -> Result<RemoveReport> {
    let Some(found) = find(parent, name)? else { return Ok(RemoveReport::default()) };
    let path = parent.path().join(name);
    let replaced = |id| {
        Error::new(ErrorKind::Replaced, OPERATION, &path)
            .because(format!("its inode is {id}, another was expected"))
    };
    if expected.is_some_and(|expected| expected != found.facts.id) {
        return Err(replaced(found.facts.id));
    }
    refuse_mounts(OPERATION, &path, parent)?;
    let failed = |errno| Error::os(OPERATION, &path, errno);
    let aside = unique(TRASH, name).map_err(failed)?;
    rename(parent, name, &aside).map_err(failed)?;
    // Another root process may have put another tree in the name's place since it was looked at.
    match Facts::at(parent.dir(), aside.as_os_str()) {
        Ok(moved) if moved.id != found.facts.id => {
            rename(parent, &aside, name)
                .map_err(|errno| Error::os(OPERATION, parent.path().join(&aside), errno))?;
            return Err(replaced(moved.id));
        }
        // A sweep may be done with it already.
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    remove_aside(parent, &aside, &found)
}

/// A tree's own directory, opened.
pub(crate) struct Found {
    pub(crate) fd: OwnedFd,
    pub(crate) facts: Facts,
}

/// Opens a tree's own directory, if there is one.
pub(crate) fn find(parent: &TrustedDir, name: &Name) -> Result<Option<Found>> {
    let path = || parent.path().join(name);
    match sys::directory(parent.dir(), name) {
        Ok(fd) => {
            let facts = Facts::of_open(&fd).map_err(|errno| Error::os("examine", path(), errno))?;
            Ok(Some(Found { fd, facts }))
        }
        Err(Errno::ENOENT) => Ok(None),
        Err(errno) => Err(refused_at(OPERATION, path(), errno)),
    }
}

/// Looks for mounts in the tree at `path`, and nowhere else.
pub(crate) fn refuse_mounts(
    operation: &'static str,
    path: &Path,
    parent: &TrustedDir,
) -> Result<()> {
    let mounts = mounts::below(path, parent.mount())?;
    if mounts.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Mounted, operation, path).over_mounts(mounts))
}

/// Removes a tree that has been moved aside.
pub(crate) fn remove_aside(
    parent: &TrustedDir,
    name: &Name,
    found: &Found,
) -> Result<RemoveReport> {
    empty_and_remove(parent.dir(), name, &found.fd).map(|entries| RemoveReport { entries })
}

fn rename(parent: &TrustedDir, from: &Name, to: &Name) -> std::result::Result<(), Errno> {
    sys::rename_new((parent.dir(), from.as_os_str()), (parent.dir(), to.as_os_str()))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::testing::trusted;

    #[test]
    fn links_are_removed_not_followed() {
        let (tmp, parent) = trusted();
        let path = |name: &str| tmp.path().join(name);
        fs::create_dir_all(path("tree/a/b/c/d")).unwrap();
        fs::create_dir_all(path("tree/a/empty")).unwrap();
        fs::create_dir(path("kept")).unwrap();
        fs::write(path("kept/file"), "kept").unwrap();
        fs::write(path("tree/a/b/file"), "").unwrap();
        symlink("../kept", path("tree/link")).unwrap();
        symlink("../../kept", path("tree/a/link")).unwrap();
        let name = Name::try_from("tree").unwrap();
        assert_eq!(remove_tree(&parent, &name, None).unwrap().entries, 9);
        assert_eq!(remove_tree(&parent, &name, None).unwrap().entries, 0);
        assert_eq!(parent.entries().unwrap(), [Name::try_from("kept").unwrap()]);
        assert_eq!(fs::read_to_string(path("kept/file")).unwrap(), "kept");
    }

    #[test]
    fn another_tree_is_left_alone() {
        let (tmp, parent) = trusted();
        let name = Name::try_from("tree").unwrap();
        fs::create_dir(tmp.path().join("tree")).unwrap();
        let id = parent.child(&name).unwrap().id();
        assert_eq!(
            remove_tree(&parent, &name, Some(parent.id())).unwrap_err().kind(),
            ErrorKind::Replaced
        );
        assert_eq!(parent.child(&name).unwrap().id(), id);
        assert_eq!(remove_tree(&parent, &name, Some(id)).unwrap().entries, 1);
    }

    #[test]
    fn refuses_trees_without_directory() {
        let (tmp, parent) = trusted();
        fs::create_dir(tmp.path().join("real")).unwrap();
        symlink("real", tmp.path().join("link")).unwrap();
        fs::write(tmp.path().join("file"), "").unwrap();
        for name in ["link", "file"] {
            let error = remove_tree(&parent, &Name::try_from(name).unwrap(), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{error:?}");
        }
        assert_eq!(parent.entries().unwrap().len(), 3);
    }
}

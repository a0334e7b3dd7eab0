//! Removing the trees that killed processes left.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use super::lease::Lease;
use super::staged_tree::STAGING;
use crate::base::TrustedDir;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;
use crate::remove::{self, TRASH};
use crate::sys;

/// The report of a sweep.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// The trees that were removed.
    pub removed: Vec<PathBuf>,
    /// The trees that a living process is making.
    pub kept: Vec<PathBuf>,
    /// The trees that could not be removed.
    pub failed: Vec<SweepFailure>,
}

/// A tree that a sweep could not remove.
#[derive(Debug)]
#[non_exhaustive]
pub struct SweepFailure {
    /// The tree.
    pub path: PathBuf,
    /// The reason; its path may be deeper in the tree.
    pub error: Error,
}

/// Removes the trees in `parent` of makers and removers that have died.
///
/// A staged tree is under its maker's lease, which the kernel releases when the maker ends; a tree that is being removed
/// can be helped along by anyone. Several sweeps, makers and removers may work in `parent` at once.
///
/// # Errors
/// The error of listing `parent`. Each tree that cannot be removed is in the report.
///
/// # Privileges
/// As [`remove_tree`](crate::remove_tree).
pub fn sweep(parent: &TrustedDir) -> Result<SweepReport> {
    let mut report = SweepReport::default();
    for name in parent.entries()? {
        let staged = name.as_os_str().as_bytes().starts_with(STAGING.as_bytes());
        if !staged && !name.as_os_str().as_bytes().starts_with(TRASH.as_bytes()) {
            continue;
        }
        let path = parent.path().join(&name);
        match sweep_one(parent, &name, staged) {
            Ok(true) => report.removed.push(path),
            Ok(false) => {}
            Err(error) if staged && error.kind() == ErrorKind::Busy => report.kept.push(path),
            Err(error) => report.failed.push(SweepFailure { path, error }),
        }
    }
    Ok(report)
}

/// Removes one tree; whether there was something to remove.
fn sweep_one(parent: &TrustedDir, name: &Name, staged: bool) -> Result<bool> {
    let Some(found) = remove::find(parent, name)? else { return Ok(false) };
    let path = parent.path().join(name);
    // Held until the tree is gone.
    let _lease = match staged {
        true => {
            let fd = found.fd.try_clone();
            let fd = fd.map_err(|error| Error::os("lease", &path, sys::number(&error)))?;
            Some(Lease::lock(TrustedDir::from_parts(fd, path.clone(), &found.facts))?)
        }
        false => None,
    };
    // Published while it was looked at: then its maker has given the lease back, and the name is free again.
    let still = remove::find(parent, name)?.is_some_and(|now| now.facts.id == found.facts.id);
    if !still {
        return Ok(false);
    }
    remove::refuse_mounts("sweep", &path, parent)?;
    Ok(remove::remove_aside(parent, name, &found)?.entries > 0)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::trusted;
    use crate::tree::StagedTree;

    #[test]
    fn only_abandoned_trees_are_swept() {
        let (tmp, parent) = trusted();
        let name = Name::try_from("one").unwrap();
        let alive = StagedTree::create(&parent, &name).unwrap();
        fs::create_dir_all(tmp.path().join(".staging-dead-0/root")).unwrap();
        fs::create_dir_all(tmp.path().join(".trash-dead-0/root")).unwrap();
        fs::create_dir(tmp.path().join("other")).unwrap();
        let report = sweep(&parent).unwrap();
        assert_eq!((report.removed.len(), report.failed.len()), (2, 0));
        assert_eq!(report.kept, [alive.path()]);
        alive.publish().unwrap();
        let mut names = parent.entries().unwrap();
        names.sort();
        assert_eq!(names, [name, Name::try_from("other").unwrap()]);
    }
}

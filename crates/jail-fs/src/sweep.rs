//! What killed processes left.

use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;

use crate::error::{Error, ErrorKind, Result, number};
use crate::lease::Lease;
use crate::name::Name;
use crate::remove::{self, TRASH};
use crate::tree::STAGING;
use crate::trusted::TrustedDir;

/// What a sweep came to.
#[derive(Debug, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Trees that were removed.
    pub removed: Vec<PathBuf>,
    /// Trees that are being made, by someone who lives.
    pub kept: Vec<PathBuf>,
    /// Trees that could not be removed, and why.
    pub failed: Vec<Error>,
}

/// Removes the trees in `parent` that were being made or removed by someone who is no more.
///
/// A staged tree is under its maker's lease, which the kernel takes back when the maker ends; a tree that is being
/// removed can be helped along by anyone. Several sweeps, makers and removers may work in `parent` at once.
///
/// # Errors
/// Where `parent` cannot be listed. What cannot be removed is in the report.
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
            Err(error) => report.failed.push(error),
        }
    }
    Ok(report)
}

/// Whether there was something to remove.
fn sweep_one(parent: &TrustedDir, name: &Name, staged: bool) -> Result<bool> {
    let Some(found) = remove::find(parent, name)? else { return Ok(false) };
    // Held until the tree is gone.
    let path = parent.path().join(name);
    let clone = || found.fd.try_clone().map_err(|error| Error::os("lease", &path, number(&error)));
    let _lease = match staged {
        true => Some(Lease::lock(TrustedDir::from_parts(clone()?, path.clone(), &found.facts))?),
        false => None,
    };
    // Published while it was looked at: then its maker has given the lease back, and it is no longer here.
    let still = remove::find(parent, name)?.is_some_and(|now| now.facts.id == found.facts.id);
    if !still {
        return Ok(false);
    }
    remove::refuse_mounts("sweep", &path, parent)?;
    Ok(remove::remove_aside(parent, name, found)?.entries > 0)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::trusted;
    use crate::tree::StagedTree;

    #[test]
    fn only_what_no_one_holds_is_swept() {
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

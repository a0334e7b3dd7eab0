//! Mounts inside a tree.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};

use super::mountinfo::{Mounts, Table};
use crate::error::Result;

/// Lists the mount points at or below `path`, a directory reached through the mount with the id `mount`.
///
/// Mount points that only another mount of the same filesystem shows are listed too: the kernel refuses to remove the
/// directory under them as well. The table is read at most once a call.
pub(crate) fn below(path: &Path, mount: u64) -> Result<Vec<PathBuf>> {
    static TABLE: Mutex<Option<Table>> = Mutex::new(None);
    let mut table = match TABLE.try_lock() {
        Ok(table) => table,
        // A panic elsewhere left a whole table or none.
        Err(TryLockError::Poisoned(table)) => table.into_inner(),
        // Another thread reads it, or one that a fork left behind did: then for good.
        Err(TryLockError::WouldBlock) => return Ok(find(Table::read()?.mounts(), path, mount)),
    };
    // Whichever namespace it is of: a table with the mount through which a tree is reached is the right one for the tree.
    let known = table.as_ref().filter(|known| known.is_current());
    if let Some(known) = known.filter(|known| known.mounts().get(mount).is_some()) {
        return Ok(find(known.mounts(), path, mount));
    }
    let fresh = Table::read()?;
    let found = find(fresh.mounts(), path, mount);
    *table = Some(fresh);
    Ok(found)
}

fn find(mounts: &Mounts, path: &Path, mount: u64) -> Vec<PathBuf> {
    let home = mounts.get(mount);
    // The tree's place in its filesystem, whatever it is mounted as.
    let tree = home.and_then(|home| home.place(path));
    let others = mounts.iter().filter(|candidate| candidate.id != mount);
    let inside = others.filter(|candidate| {
        if candidate.point.starts_with(path) {
            return true;
        }
        let (Some(home), Some(tree)) = (home, &tree) else { return false };
        mounts
            .get(candidate.parent)
            .filter(|parent| parent.device == home.device)
            .and_then(|parent| parent.place(&candidate.point))
            .is_some_and(|place| place.starts_with(tree))
    });
    inside.map(|candidate| candidate.point.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &[u8] = b"\
21 1 254:0 / / rw,relatime - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
30 21 254:0 /srv/jails /mnt/alias rw - ext4 /dev/vda rw
31 21 8:1 / /srv/jails/fc/one/root/data rw - xfs /dev/sda1 rw
32 31 0:44 / /srv/jails/fc/one/root/data/deep rw - tmpfs none rw
33 30 8:1 / /mnt/alias/fc/two/root/a\\040b rw - xfs /dev/sda1 rw
34 21 8:2 / /srv/jails/fc/one-more rw - xfs /dev/sdb1 rw
36 21 9:1 /srv/jails/fc /other rw - ext4 /dev/sdc1 rw
37 36 8:3 / /other/three/data rw - xfs /dev/sdd1 rw
35 21 0:50 / /srv/jails/fc/one/a\\040b\\134 rw - tmpfs none rw
";

    fn found(path: &str) -> Vec<String> {
        let lines = TEXT.split(|byte| *byte == b'\n');
        let mounts: Mounts = lines.filter_map(super::super::mountinfo::Mount::parse).collect();
        let mut found: Vec<_> = find(&mounts, Path::new(path), 21)
            .iter()
            .map(|path| path.display().to_string())
            .collect();
        found.sort();
        found
    }

    #[test]
    fn finds_mounts_in_trees() {
        assert_eq!(
            found("/srv/jails/fc/one"),
            [
                "/srv/jails/fc/one/a b\\",
                "/srv/jails/fc/one/root/data",
                "/srv/jails/fc/one/root/data/deep"
            ]
        );
        assert_eq!(found("/srv/jails/fc/three"), [""; 0]);
        assert_eq!(found("/srv/jails/fc/one-more"), ["/srv/jails/fc/one-more"]);
    }

    #[test]
    fn finds_mounts_behind_aliases() {
        assert_eq!(found("/srv/jails/fc/two"), ["/mnt/alias/fc/two/root/a b"]);
    }

    /// A search through each mount for each mount would take minutes.
    #[test]
    fn many_mounts_are_searched() {
        let mounts: Mounts = (1..100_000)
            .map(|id| {
                format!(
                    "{id} {} 254:0 / /srv/jails/fc/tree-{id}/root rw - ext4 /dev/vda rw",
                    id / 2
                )
            })
            .filter_map(|line| super::super::mountinfo::Mount::parse(line.as_bytes()))
            .collect();
        assert_eq!(find(&mounts, Path::new("/srv/jails/fc/tree-7"), 1).len(), 1);
        assert_eq!(find(&mounts, Path::new("/srv/jails/fc/none"), 1).len(), 0);
    }
}

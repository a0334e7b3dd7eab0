//! Host files that must not change.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::{fmt, fs, io};

/// A snapshot of a tree: all contents, owners, modes, link counts, inodes, device numbers and xattr names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canary {
    dir: PathBuf,
    entries: BTreeMap<PathBuf, Entry>,
}

#[derive(Clone, PartialEq, Eq)]
struct Entry {
    mode: u32,
    uid: u32,
    gid: u32,
    nlink: u64,
    rdev: u64,
    inode: u64,
    xattrs: Vec<OsString>,
    /// A file's bytes or a link's target.
    content: Vec<u8>,
}

impl Canary {
    /// Reads the tree at `dir`, with the directory itself, without following symlinks.
    ///
    /// # Panics
    /// If an entry cannot be read.
    #[must_use]
    pub fn take(dir: &Path) -> Self {
        let mut entries = BTreeMap::new();
        read(dir, dir, &mut entries)
            .unwrap_or_else(|err| panic!("take the canary {}: {err}", dir.display()));
        Self { dir: dir.to_owned(), entries }
    }

    /// Lists the changes since the snapshot, one line each.
    #[must_use]
    pub fn differences(&self) -> Vec<String> {
        let now = Self::take(&self.dir);
        let gone = self.entries.keys().filter(|path| !now.entries.contains_key(*path));
        let new = now.entries.keys().filter(|path| !self.entries.contains_key(*path));
        let changed = self.entries.iter().filter_map(|(path, was)| {
            let is = now.entries.get(path)?;
            (is != was).then(|| format!("{}: {was:?} became {is:?}", self.dir.join(path).display()))
        });
        gone.map(|path| format!("{} is gone", self.dir.join(path).display()))
            .chain(new.map(|path| format!("{} is new", self.dir.join(path).display())))
            .chain(changed)
            .collect()
    }

    /// Compares the tree with the snapshot.
    ///
    /// # Panics
    /// If anything has changed. The message lists the changes.
    #[track_caller]
    pub fn assert_same(&self) {
        let differences = self.differences();
        assert!(differences.is_empty(), "the canary changed:\n  {}", differences.join("\n  "));
    }
}

fn read(root: &Path, path: &Path, entries: &mut BTreeMap<PathBuf, Entry>) -> io::Result<()> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let content = if kind.is_file() {
        fs::read(path)?
    } else if kind.is_symlink() {
        fs::read_link(path)?.into_os_string().into_vec()
    } else {
        Vec::new()
    };
    let entry = Entry {
        mode: meta.mode(),
        uid: meta.uid(),
        gid: meta.gid(),
        nlink: meta.nlink(),
        rdev: meta.rdev(),
        inode: meta.ino(),
        xattrs: xattr_names(path)?,
        content,
    };
    entries.insert(path.strip_prefix(root).unwrap_or(path).to_owned(), entry);
    if kind.is_dir() {
        for child in fs::read_dir(path)? {
            read(root, &child?.path(), entries)?;
        }
    }
    Ok(())
}

fn xattr_names(path: &Path) -> io::Result<Vec<OsString>> {
    let mut list = vec![0; 64 << 10];
    let length = match rustix::fs::llistxattr(path, &mut list) {
        Ok(length) => length,
        Err(rustix::io::Errno::NOTSUP) => 0,
        Err(err) => return Err(err.into()),
    };
    let mut names: Vec<_> = list[..length]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| OsString::from_vec(name.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

impl fmt::Debug for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { mode, uid, gid, nlink, rdev, inode, xattrs, content } = self;
        write!(f, "{mode:o} {uid}:{gid} nlink {nlink} inode {inode}")?;
        if *rdev != 0 {
            write!(f, " rdev {rdev:#x}")?;
        }
        if !xattrs.is_empty() {
            write!(f, " xattrs {xattrs:?}")?;
        }
        let head = &content[..content.len().min(32)];
        write!(f, " {} bytes \"{}\"", content.len(), head.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::Scratch;

    /// Checks that the canary can fail: each kind of change is a difference.
    #[test]
    fn every_change_is_detected() {
        let scratch = Scratch::new("canary");
        let dir = scratch.dir("tree/sub");
        let tree = scratch.join("tree");
        let file = scratch.file("tree/file", "one");
        let canary = Canary::take(&tree);
        canary.assert_same();

        fs::write(&file, "two").unwrap();
        assert_eq!(canary.differences().len(), 1, "bytes");
        fs::write(&file, "one").unwrap();
        canary.assert_same();

        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        assert_eq!(canary.differences().len(), 1, "mode");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();

        fs::hard_link(&file, scratch.join("elsewhere")).unwrap();
        assert_eq!(canary.differences().len(), 1, "links");
        fs::remove_file(scratch.join("elsewhere")).unwrap();
        canary.assert_same();

        std::os::unix::fs::symlink("x", dir.join("link")).unwrap();
        assert!(canary.differences().iter().any(|line| line.ends_with("is new")));
        fs::remove_file(dir.join("link")).unwrap();
        fs::remove_file(&file).unwrap();
        assert!(canary.differences().iter().any(|line| line.ends_with("is gone")));
    }
}

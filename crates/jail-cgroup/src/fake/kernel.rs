//! The kernel's part in a fake hierarchy: files of new groups, removal, attributes.

#![expect(clippy::disallowed_methods, reason = "a fake kernel writes its files freely")]

use std::fs;
use std::path::{Path, PathBuf};

use crate::CgroupVersion;
use crate::sys::Errno;

/// In each fake group: the version, then a line `<file> <content>` for each file of the groups below.
pub(crate) const KIND: &str = ".fake";

/// Returns the version that a directory plays; `None` for a real directory.
pub(crate) fn version_of(dir: &Path) -> Option<CgroupVersion> {
    let kind = fs::read_to_string(dir.join(KIND)).ok()?;
    let versions = [CgroupVersion::V1, CgroupVersion::V2];
    versions.into_iter().find(|version| kind.starts_with(&version.to_string()))
}

/// Writes the files of a new group.
pub(crate) fn fill(dir: &Path) {
    if let Ok(kind) = fs::read_to_string(dir.parent().unwrap().join(KIND)) {
        write_files(dir, &kind);
    }
}

pub(crate) fn write_files(dir: &Path, kind: &str) {
    fs::write(dir.join(KIND), kind).unwrap();
    for line in kind.lines().skip(1) {
        let (name, content) = line.split_once(' ').unwrap();
        fs::write(dir.join(name), content).unwrap();
    }
}

/// Removes the files of a group that is about to be removed.
pub(crate) fn empty(dir: &Path) {
    if version_of(dir).is_none() {
        return;
    }
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}

/// Empties a file of a fake group before a write.
pub(crate) fn truncate(file: &Path) {
    if version_of(file.parent().unwrap()).is_some() && file.exists() {
        fs::write(file, "").unwrap();
    }
}

fn attribute_file(dir: &Path, name: &str) -> Option<PathBuf> {
    version_of(dir)?;
    Some(dir.join(format!(".{name}")))
}

/// Sets an extended attribute of a fake group, without any privilege; `None` for a real directory.
pub(crate) fn set_attribute(dir: &Path, name: &str, value: &[u8]) -> Option<Result<(), Errno>> {
    let file = attribute_file(dir, name)?;
    if file.exists() {
        return Some(Err(Errno::EXIST));
    }
    fs::write(file, value).unwrap();
    Some(Ok(()))
}

/// Reads an extended attribute of a fake group; `None` for a real directory.
pub(crate) fn attribute(dir: &Path, name: &str) -> Option<Option<Vec<u8>>> {
    Some(fs::read(attribute_file(dir, name)?).ok())
}

//! Reads the state of a process from the kernel: `/proc/<pid>` (proc(5)) and the files of control groups.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// A process, read through `/proc`.
#[derive(Debug)]
pub(super) struct Process {
    dir: PathBuf,
    status: String,
}

impl Process {
    pub(super) fn of(pid: u32) -> Result<Self> {
        let dir = PathBuf::from(format!("/proc/{pid}"));
        let status = read(&dir.join("status"))?;
        Ok(Self { dir, status })
    }

    /// Returns a field of `/proc/<pid>/status`, with single blanks.
    pub(super) fn status(&self, field: &str) -> Result<String> {
        let line = self.status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let line = line.with_context(|| format!("no {field} in {}/status", self.dir.display()))?;
        Ok(line.split_whitespace().collect::<Vec<_>>().join(" "))
    }

    /// Returns the device and inode of the process's root directory.
    pub(super) fn root(&self) -> Result<(u64, u64)> {
        inode(&self.dir.join("root/"))
    }

    /// Returns true if the process's namespace of this kind (`pid`, `mnt`, …) differs from ours.
    pub(super) fn has_own_namespace(&self, kind: &str) -> Result<bool> {
        let other = link(&self.dir.join("ns").join(kind))?;
        Ok(other != link(&Path::new("/proc/self/ns").join(kind))?)
    }

    /// Returns the number of open descriptors.
    pub(super) fn descriptors(&self) -> Result<usize> {
        let dir = self.dir.join("fd");
        Ok(fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))?.count())
    }

    /// Returns the lines of `/proc/<pid>/cgroup`.
    pub(super) fn control_groups(&self) -> Result<Vec<String>> {
        Ok(read(&self.dir.join("cgroup"))?.lines().map(str::to_owned).collect())
    }
}

/// Returns the link targets of open files and directories outside `jail`.
pub(super) fn files_outside(pid: u32, jail: &Path) -> Result<Vec<String>> {
    let mut inside = BTreeSet::new();
    inodes(jail, &mut inside)?;
    let dir = PathBuf::from(format!("/proc/{pid}/fd"));
    let mut outside = Vec::new();
    for entry in fs::read_dir(&dir).with_context(|| format!("list {}", dir.display()))? {
        let descriptor = entry?.path();
        // The magic link leads to the open file. A descriptor closed since the listing is skipped.
        let Ok(meta) = fs::metadata(&descriptor) else { continue };
        if (meta.is_file() || meta.is_dir()) && !inside.contains(&(meta.dev(), meta.ino())) {
            match fs::read_link(&descriptor) {
                Ok(target) => outside.push(target.display().to_string()),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("read {}", descriptor.display()));
                }
            }
        }
    }
    Ok(outside)
}

/// Collects the inodes of a tree, with the top directory.
fn inodes(path: &Path, found: &mut BTreeSet<(u64, u64)>) -> Result<()> {
    let meta = fs::symlink_metadata(path).with_context(|| format!("look at {}", path.display()))?;
    found.insert((meta.dev(), meta.ino()));
    if meta.is_dir() {
        for entry in fs::read_dir(path).with_context(|| format!("list {}", path.display()))? {
            inodes(&entry?.path(), found)?;
        }
    }
    Ok(())
}

/// Returns the value of the first file that exists in one of the directories: control groups v2 and v1 name the same
/// limit differently.
pub(super) fn limit(groups: &[PathBuf], files: &[&str]) -> Option<String> {
    let mut paths = files.iter().flat_map(|file| groups.iter().map(move |group| group.join(file)));
    let text = paths.find_map(|path| fs::read_to_string(path).ok())?;
    Some(text.trim().to_owned())
}

/// Returns the device and inode of a path; follows symlinks.
pub(super) fn inode(path: &Path) -> Result<(u64, u64)> {
    let meta = fs::metadata(path).with_context(|| format!("look at {}", path.display()))?;
    Ok((meta.dev(), meta.ino()))
}

fn link(path: &Path) -> Result<PathBuf> {
    fs::read_link(path).with_context(|| format!("read {}", path.display()))
}

fn read(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_is_read() {
        let process = Process::of(std::process::id()).unwrap();
        assert_eq!(process.status("Pid").unwrap(), std::process::id().to_string());
        assert_eq!(process.root().unwrap(), inode(Path::new("/")).unwrap());
        assert!(!process.has_own_namespace("pid").unwrap());
        assert!(process.descriptors().unwrap() >= 3);
        assert!(process.status("Nope").is_err());
    }

    #[test]
    fn outside_files_are_found() {
        let jail = tempfile::tempdir().unwrap();
        let _inside = fs::File::create(jail.path().join("inside")).unwrap();
        let outside = tempfile::NamedTempFile::new().unwrap();
        let found = files_outside(std::process::id(), jail.path()).unwrap();
        assert!(found.contains(&outside.path().display().to_string()), "{found:?}");
        assert!(!found.iter().any(|path| path.ends_with("inside")), "{found:?}");
    }

    #[test]
    fn either_limit_name_works() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("memory.limit_in_bytes"), "4096\n").unwrap();
        let groups = [dir.path().to_owned()];
        assert_eq!(
            limit(&groups, &["memory.max", "memory.limit_in_bytes"]).as_deref(),
            Some("4096")
        );
        assert_eq!(limit(&groups, &["pids.max"]), None);
    }
}

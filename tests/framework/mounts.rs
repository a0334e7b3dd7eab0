//! The mounts in the mount namespace of this process.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)), with the fields that tests need.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct Mount {
    /// The mounted directory of the filesystem; other than `/` for most bind mounts.
    pub root: PathBuf,
    /// The mount point, without octal escapes.
    pub point: PathBuf,
    /// The filesystem's type, such as `ext4` or `cgroup2`.
    pub fstype: String,
    /// The mount source: a device, or another text of the filesystem.
    pub source: String,
    /// The options of the filesystem; for cgroup v1, the names of the controllers.
    pub super_options: String,
}

/// Lists all mounts of this mount namespace, oldest first.
///
/// # Panics
/// If `/proc` is not mounted.
#[must_use]
pub fn all() -> Vec<Mount> {
    let bytes = std::fs::read("/proc/self/mountinfo").expect("read /proc/self/mountinfo");
    // A mount point need not be UTF-8.
    String::from_utf8_lossy(&bytes).lines().filter_map(parse).collect()
}

/// Lists the mount points at `dir` or below, oldest first.
#[must_use]
pub fn below(dir: &Path) -> Vec<PathBuf> {
    all().into_iter().map(|mount| mount.point).filter(|point| point.starts_with(dir)).collect()
}

fn parse(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut right = right.split(' ');
    Some(Mount {
        root: unescape(left.split(' ').nth(3)?),
        point: unescape(left.split(' ').nth(4)?),
        fstype: right.next()?.to_owned(),
        source: right.next()?.to_owned(),
        super_options: right.next()?.to_owned(),
    })
}

/// Decodes the kernel's octal escapes of space, tab, newline and backslash, such as `\040`.
fn unescape(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let code = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'))
            }
            _ => None,
        };
        bytes.push(code.unwrap_or(first));
        rest = if code.is_some() { &tail[3..] } else { tail };
    }
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mountinfo_lines_are_parsed() {
        let mount =
            parse(r"41 30 0:34 / /srv/a\040b rw,relatime shared:5 - cgroup cgroup rw,cpu,cpuacct")
                .unwrap();
        assert_eq!(mount.point, Path::new("/srv/a b"));
        assert_eq!(mount.fstype, "cgroup");
        assert_eq!(mount.super_options, "rw,cpu,cpuacct");
    }

    #[test]
    fn stray_backslashes_are_kept() {
        assert_eq!(unescape(r"/a\"), Path::new(r"/a\"));
        assert_eq!(unescape(r"/a\9"), Path::new(r"/a\9"));
        assert_eq!(unescape(r"/\134\011"), Path::new("/\\\t"));
    }

    #[test]
    fn the_root_is_mounted() {
        assert!(all().iter().any(|mount| mount.point == Path::new("/")));
    }
}

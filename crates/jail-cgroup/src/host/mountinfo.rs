//! The mounts of control group hierarchies in mountinfo.

use std::borrow::Cow;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::dir::Dir;
use crate::sys::{self, Errno};
use crate::{CgroupVersion, Controller, Error, ErrorKind, Result};

/// Mounted hierarchy: a line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    version: CgroupVersion,
    id: u64,
    point: PathBuf,
    root: PathBuf,
    read_only: bool,
    controllers: Vec<Controller>,
    covered: Covered,
}

/// Knowledge from mountinfo about mounts on top of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covered {
    No,
    /// The point of another mount, on which this one is not mounted, is the same or above.
    Perhaps,
}

impl Mount {
    /// Returns the version of control groups.
    #[must_use]
    pub fn version(&self) -> CgroupVersion {
        self.version
    }

    /// Returns the mount point.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.point
    }

    /// Returns the group of the hierarchy that is mounted: `/`, or another group if a part is bind-mounted, as in a
    /// container.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Returns true if the mount is read-only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// Returns the controllers of a v1 hierarchy that this crate knows. Empty for v2.
    #[must_use]
    pub fn controllers(&self) -> &[Controller] {
        &self.controllers
    }

    /// Returns true if the mount can be reached: neither covered, by its id if mountinfo leaves that open, nor unmounted
    /// since. A mount that cannot be looked at is an error: its groups would be taken for removed.
    pub(crate) fn is_reachable(&self) -> Result<bool> {
        if self.covered == Covered::No {
            return Ok(true);
        }
        let reachable = match sys::mount_id_at(&self.point) {
            Ok(Some(id)) => Ok(id == self.id),
            Ok(None) => self.open().map(|_| true),
            Err(errno) => Err(Error::call("stat", &self.point, errno)),
        };
        match reachable {
            Err(error) if matches!(error.errno(), None | Some(Errno::NOENT | Errno::NOTDIR)) => {
                Ok(false)
            }
            reachable => reachable,
        }
    }

    /// Opens the mount and checks the filesystem's magic number and the mount's id.
    pub(crate) fn open(&self) -> Result<Dir> {
        let dir = Dir::open_mount(&self.point, self.version)?;
        match dir.mount_id()? {
            Some(id) if id != self.id => Err(Error::new(ErrorKind::Unexpected, "open")
                .at(&self.point)
                .because("another filesystem is mounted over it")),
            _ => Ok(dir),
        }
    }

    /// Returns true if the mount shows the hierarchy of `version` with one of `controllers`, or a part of that hierarchy.
    pub(crate) fn is_of(&self, version: CgroupVersion, controllers: &[Controller]) -> bool {
        self.version == version
            && (version == CgroupVersion::V2
                || self.controllers.iter().any(|controller| controllers.contains(controller)))
    }
}

/// Parses a mountinfo into the mounts of control groups, in order. Other lines, and lines that no kernel writes, are
/// skipped without a copy: mounts can be many.
pub(crate) fn parse(mountinfo: &[u8]) -> Vec<Mount> {
    let lines = || mountinfo.split(|byte| *byte == b'\n').filter_map(Line::parse);
    let mut mounts: Vec<(Mount, u64)> =
        lines().filter_map(|line| Some((line.mount()?, line.parent))).collect();
    let points: Vec<Vec<u8>> =
        mounts.iter().map(|(mount, _)| mount.point.clone().into_os_string().into_vec()).collect();
    // For each mount the others whose point is the same or above.
    let mut above: Vec<Vec<(u64, u64)>> = vec![Vec::new(); mounts.len()];
    for line in lines() {
        let point = unescape(line.point);
        for ((mount, _), (path, above)) in mounts.iter().zip(points.iter().zip(&mut above)) {
            if line.id != mount.id && is_at_or_below(path, &point) {
                above.push((line.id, line.parent));
            }
        }
    }
    for ((mount, parent), above) in mounts.iter_mut().zip(&mut above) {
        // The mount on which it is mounted, and so on down, lie below and do not cover.
        let mut parent = *parent;
        while let Some(at) = above.iter().position(|(id, _)| *id == parent) {
            parent = above.swap_remove(at).1;
        }
        mount.covered = if above.is_empty() { Covered::No } else { Covered::Perhaps };
    }
    mounts.into_iter().map(|(mount, _)| mount).collect()
}

/// Fields of every line.
struct Line<'a> {
    id: u64,
    parent: u64,
    root: &'a [u8],
    point: &'a [u8],
    rest: &'a [u8],
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(6, |byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let _device = fields.next()?;
        let absolute = |field: &&'a [u8]| field.starts_with(b"/");
        let (root, point) = (fields.next().filter(absolute)?, fields.next().filter(absolute)?);
        Some(Self { id, parent, root, point, rest: fields.next()? })
    }

    fn mount(&self) -> Option<Mount> {
        let mut fields = self.rest.split(|byte| *byte == b' ');
        let options = fields.next()?;
        // Any number of optional fields, then a single hyphen.
        fields.find(|field| *field == b"-")?;
        let version = match fields.next()? {
            b"cgroup" => CgroupVersion::V1,
            b"cgroup2" => CgroupVersion::V2,
            _ => return None,
        };
        let super_options = fields.nth(1)?;
        let read_only = has_option(options, "ro") || has_option(super_options, "ro");
        let controllers = match version {
            CgroupVersion::V1 => Controller::ALL
                .into_iter()
                .filter(|controller| has_option(super_options, controller.name(version)))
                .collect(),
            CgroupVersion::V2 => Vec::new(),
        };
        let path = |field: &[u8]| OsString::from_vec(unescape(field).into_owned()).into();
        let (id, root, point) = (self.id, path(self.root), path(self.point));
        Some(Mount { version, id, point, root, read_only, controllers, covered: Covered::Perhaps })
    }
}

fn is_at_or_below(path: &[u8], other: &[u8]) -> bool {
    match path.strip_prefix(other) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || other.ends_with(b"/"),
        None => false,
    }
}

fn has_option(list: &[u8], name: &str) -> bool {
    list.split(|byte| *byte == b',').any(|option| option == name.as_bytes())
}

/// Decodes the kernel's `\040` for space, tab, line feed and backslash.
fn unescape(field: &[u8]) -> Cow<'_, [u8]> {
    if !field.contains(&b'\\') {
        return Cow::Borrowed(field);
    }
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        if let (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', tail @ ..]) =
            (first, tail)
        {
            bytes.push((a - b'0') << 6 | (b - b'0') << 3 | (c - b'0'));
            rest = tail;
        } else {
            bytes.push(first);
            rest = tail;
        }
    }
    Cow::Owned(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_end_at_names() {
        for (path, other, below) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a/b", "/", true),
            ("/", "/", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
        ] {
            assert_eq!(is_at_or_below(path.as_bytes(), other.as_bytes()), below, "{path} {other}");
            assert_eq!(Path::new(path).starts_with(other), below);
        }
    }

    #[test]
    fn covering_mounts_are_found() {
        let text = b"20 1 8:1 / / rw - ext4 disk rw\n\
            21 20 0:20 / /sys rw - sysfs sysfs rw\n\
            22 21 0:21 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
            23 22 0:22 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
            24 22 0:23 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n\
            25 24 0:24 / /sys/fs/cgroup/memory rw - tmpfs tmpfs rw\n\
            26 22 0:25 / /sys/fs/cgroup/pids-too rw - cgroup2 cgroup2 rw\n\
            30 20 0:30 / /old/sys rw - sysfs sysfs rw\n\
            31 30 0:31 / /old/sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            32 20 0:32 / /old/sys rw - tmpfs tmpfs rw\n";
        let covered: Vec<_> = parse(text).iter().map(|mount| (mount.id, mount.covered)).collect();
        let expected =
            [(23, Covered::No), (24, Covered::Perhaps), (26, Covered::No), (31, Covered::Perhaps)];
        assert_eq!(covered, expected);
    }

    #[test]
    fn a_hundred_thousand_mounts_are_parsed() {
        use std::fmt::Write as _;
        let mut text = String::new();
        for index in 0..100_000 {
            let id = index + 100;
            writeln!(
                text,
                "{id} 20 0:50 / /containers/{index}/\\040merged rw - overlay overlay rw"
            )
            .unwrap();
        }
        let own = b"22 21 0:21 / /sys/fs/\xffcgroup rw - cgroup2 cgroup2 rw\n";
        let mounts = parse(&[text.as_bytes(), own, text.as_bytes()].concat());
        assert_eq!(mounts.len(), 1);
        assert_eq!(mounts[0].covered, Covered::No);
        assert_eq!(mounts[0].point.as_os_str().as_encoded_bytes(), b"/sys/fs/\xffcgroup");
    }
}

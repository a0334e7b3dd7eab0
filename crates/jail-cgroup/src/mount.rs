//! The mounts of control group hierarchies, as mountinfo has them.

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};

use rustix::io::Errno;

use crate::dir::Dir;
use crate::{Controller, Error, ErrorKind, Result, Version};

/// A mounted hierarchy: one line of `/proc/self/mountinfo` (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    version: Version,
    id: u64,
    point: PathBuf,
    root: PathBuf,
    read_only: bool,
    controllers: Vec<Controller>,
    covered: Covered,
}

/// Whether another mount lies over it, as far as mountinfo tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Covered {
    No,
    /// One that it is not mounted in has its point or one above it.
    Perhaps,
}

impl Mount {
    /// Which version of control groups it is.
    #[must_use]
    pub fn version(&self) -> Version {
        self.version
    }

    /// Where it is mounted.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The group of the hierarchy that is mounted there: `/`, or another one where a part is bind-mounted, as in a
    /// container.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Whether nothing can be made or written through it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.read_only
    }

    /// v1: the controllers bound to this hierarchy, as far as this crate knows them. Empty for v2.
    #[must_use]
    pub fn controllers(&self) -> &[Controller] {
        &self.controllers
    }

    /// Whether it is there to be used: not covered by another, by the mount's id where mountinfo leaves that open, nor gone
    /// since. One that cannot be looked at is an error, or a group in it would be taken for removed.
    pub(crate) fn shows_itself(&self) -> Result<bool> {
        if self.covered == Covered::No {
            return Ok(true);
        }
        let shown = match Dir::mount_id_at(&self.point) {
            Ok(Some(id)) => Ok(id == self.id),
            Ok(None) => self.open().map(|_| true),
            Err(error) => Err(error),
        };
        match shown {
            Err(error) if matches!(error.errno(), None | Some(Errno::NOENT | Errno::NOTDIR)) => {
                Ok(false)
            }
            shown => shown,
        }
    }

    /// Opens it, and proves that it is what mountinfo said: the filesystem's magic number and the mount's id.
    pub(crate) fn open(&self) -> Result<Dir> {
        let dir = Dir::open_mount(&self.point, self.version)?;
        match dir.mount_id()? {
            Some(id) if id != self.id => Err(Error::new(ErrorKind::Unexpected, "open")
                .path(&self.point)
                .because("something else is mounted over it")),
            _ => Ok(dir),
        }
    }

    /// Whether `other` shows the same hierarchy, be it another part of it.
    pub(crate) fn is_of(&self, version: Version, controllers: &[Controller]) -> bool {
        self.version == version
            && (version == Version::V2
                || self.controllers.iter().any(|controller| controllers.contains(controller)))
    }
}

/// All control group mounts in the text of a mountinfo, in its order. Lines that are none, or none of the kernel's
/// making, are passed over.
pub(crate) fn parse_all(mountinfo: &[u8]) -> Vec<Mount> {
    let lines = mountinfo.split(|byte| *byte == b'\n');
    let lines: Vec<_> = lines.filter_map(Line::parse).collect();
    let mount = |line: &Line<'_>| {
        let mount = line.mount()?;
        Some(Mount { covered: line.covered(&lines), ..mount })
    };
    lines.iter().filter_map(mount).collect()
}

/// What every line has, and the fields after it.
struct Line<'a> {
    id: u64,
    parent: u64,
    root: PathBuf,
    point: PathBuf,
    rest: Vec<&'a [u8]>,
}

impl<'a> Line<'a> {
    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
        let (id, parent) = (number()?, number()?);
        let _device = fields.next()?;
        let root = absolute(fields.next()?)?;
        let point = absolute(fields.next()?)?;
        Some(Self { id, parent, root, point, rest: fields.collect() })
    }

    fn covered(&self, lines: &[Self]) -> Covered {
        let above = |line: &&Self| line.id != self.id && is_at_or_below(&self.point, &line.point);
        let mut above: Vec<_> = lines.iter().filter(above).collect();
        // What it is mounted in, and what that is mounted in, is below it.
        let mut parent = self.parent;
        while let Some(at) = above.iter().position(|line| line.id == parent) {
            parent = above.swap_remove(at).parent;
        }
        if above.is_empty() { Covered::No } else { Covered::Perhaps }
    }

    fn mount(&self) -> Option<Mount> {
        let Self { id, root, point, .. } = self;
        let mut fields = self.rest.iter().copied();
        let options = fields.next()?;
        // Any number of optional fields, then a lone hyphen.
        fields.find(|field| *field == b"-")?;
        let version = match fields.next()? {
            b"cgroup" => Version::V1,
            b"cgroup2" => Version::V2,
            _ => return None,
        };
        let super_options = fields.nth(1)?;
        let read_only = has_option(options, "ro") || has_option(super_options, "ro");
        let controllers = match version {
            Version::V1 => Controller::ALL
                .into_iter()
                .filter(|controller| has_option(super_options, controller.name(version)))
                .collect(),
            Version::V2 => Vec::new(),
        };
        let (id, root, point) = (*id, root.clone(), point.clone());
        Some(Mount { version, id, point, root, read_only, controllers, covered: Covered::Perhaps })
    }
}

/// Of paths as the kernel writes them, without the cost of taking each into its components: mounts can be many.
fn is_at_or_below(path: &Path, other: &Path) -> bool {
    let (path, other) = (path.as_os_str().as_bytes(), other.as_os_str().as_bytes());
    match path.strip_prefix(other) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/") || other.ends_with(b"/"),
        None => false,
    }
}

fn has_option(list: &[u8], name: &str) -> bool {
    list.split(|byte| *byte == b',').any(|option| option == name.as_bytes())
}

/// A path of mountinfo; the mount of a hierarchy that lies outside the reader's control group namespace has a root such
/// as `/../x`.
fn absolute(field: &[u8]) -> Option<PathBuf> {
    let path = unescape(field);
    path.is_absolute().then_some(path)
}

/// Undoes the kernel's `\040` for space, tab, line feed and backslash.
fn unescape(field: &[u8]) -> PathBuf {
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
    OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn below_is_told_by_names_and_not_by_letters() {
        for (path, other, below) in [
            ("/a/b", "/a/b", true),
            ("/a/b", "/a", true),
            ("/a/b", "/", true),
            ("/", "/", true),
            ("/ab", "/a", false),
            ("/a", "/a/b", false),
        ] {
            let (path, other) = (Path::new(path), Path::new(other));
            assert_eq!(is_at_or_below(path, other), below, "{path:?} {other:?}");
            assert_eq!(path.starts_with(other), below);
        }
    }

    #[test]
    fn what_may_lie_over_a_mount_is_told_from_what_it_is_mounted_in() {
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
        let covered: Vec<_> =
            parse_all(text).iter().map(|mount| (mount.id, mount.covered)).collect();
        let expected =
            [(23, Covered::No), (24, Covered::Perhaps), (26, Covered::No), (31, Covered::Perhaps)];
        assert_eq!(covered, expected);
    }
}

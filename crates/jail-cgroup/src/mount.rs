//! The mounts of control group hierarchies, as mountinfo has them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

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

    /// Whether its point leads to it, and not to another mount over it, by the mount's id.
    pub(crate) fn shows_itself(&self) -> Result<bool> {
        match Dir::mount_id_at(&self.point)? {
            Some(id) => Ok(id == self.id),
            None => self.open().map(|_| true),
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
    mountinfo.split(|byte| *byte == b'\n').filter_map(parse).collect()
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let id = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let (_parent, _device) = (fields.next()?, fields.next()?);
    let root = absolute(fields.next()?)?;
    let point = absolute(fields.next()?)?;
    let options = fields.next()?;
    // Any number of optional fields, then a lone hyphen.
    fields.find(|field| *field == b"-")?;
    let version = match fields.next()? {
        b"cgroup" => Version::V1,
        b"cgroup2" => Version::V2,
        _ => return None,
    };
    let super_options = fields.nth(1)?;
    let items = |options: &'static str, list: &[u8]| has_option(list, options);
    let read_only = items("ro", options) || items("ro", super_options);
    let controllers = match version {
        Version::V1 => Controller::ALL
            .into_iter()
            .filter(|controller| has_option(super_options, controller.name(version)))
            .collect(),
        Version::V2 => Vec::new(),
    };
    Some(Mount { version, id, point, root, read_only, controllers })
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

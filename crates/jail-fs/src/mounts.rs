//! Mounts inside a tree, `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;

use crate::error::{Error, Result};

/// The mount points at or below `path`, a directory reached through the mount with the id `mount`.
///
/// Also those which are seen only through another mount of the same filesystem: the kernel refuses to remove the
/// directory under them as well.
pub(crate) fn below(path: &Path, mount: u64) -> Result<Vec<PathBuf>> {
    // The door: one fixed name.
    let name = "/proc/self/mountinfo";
    let failed = |errno| Error::os("look for mounts in", name, errno).hinted("mount /proc");
    let fd = open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
    let mut text = Vec::with_capacity(16 << 10);
    File::from(fd)
        .read_to_end(&mut text)
        .map_err(|error| failed(Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))))?;
    Ok(find(&text, path, mount))
}

/// One line of mountinfo, as it is written there; see proc_pid_mountinfo(5).
struct Mount<'a> {
    id: u64,
    parent: u64,
    device: &'a [u8],
    root: &'a [u8],
    point: &'a [u8],
}

fn parse(line: &[u8]) -> Option<Mount<'_>> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    Some(Mount { id, parent, device: fields.next()?, root: fields.next()?, point: fields.next()? })
}

fn find(text: &[u8], path: &Path, mount: u64) -> Vec<PathBuf> {
    let mounts: Vec<_> = text.split(|byte| *byte == b'\n').filter_map(parse).collect();
    let home = mounts.iter().find(|candidate| candidate.id == mount);
    // Where the tree is in its filesystem, whatever it is mounted as.
    let tree = home.and_then(|home| home.place(path));
    let inside = |candidate: &&Mount<'_>| {
        let point = unescape(candidate.point);
        if point.starts_with(path) {
            return true;
        }
        let (Some(home), Some(tree)) = (home, &tree) else { return false };
        mounts
            .iter()
            .find(|parent| parent.id == candidate.parent && parent.device == home.device)
            .and_then(|parent| parent.place(&point))
            .is_some_and(|place| place.starts_with(tree))
    };
    let others = mounts.iter().filter(|candidate| candidate.id != mount);
    others.filter(inside).map(|candidate| unescape(candidate.point)).collect()
}

impl Mount<'_> {
    /// Where in the filesystem a path is that leads through this mount.
    fn place(&self, path: &Path) -> Option<PathBuf> {
        let below = path.strip_prefix(unescape(self.point)).ok()?;
        Some(unescape(self.root).join(below))
    }
}

/// Undoes `\040` and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            std::str::from_utf8(digits).ok().and_then(|it| u8::from_str_radix(it, 8).ok())
        };
        match tail.get(..3).and_then(octal).filter(|_| first == b'\\') {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(bytes).into()
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
35 21 0:50 / /srv/jails/fc/one/a\\040b\\134 rw - tmpfs none rw
";

    fn found(path: &str) -> Vec<String> {
        let mut found: Vec<_> =
            find(TEXT, Path::new(path), 21).iter().map(|path| path.display().to_string()).collect();
        found.sort();
        found
    }

    #[test]
    fn what_is_mounted_in_a_tree_is_found() {
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
    fn also_what_another_mount_of_the_filesystem_shows() {
        assert_eq!(found("/srv/jails/fc/two"), ["/mnt/alias/fc/two/root/a b"]);
    }
}

//! Mounts inside a tree, `/proc/self/mountinfo`.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, TryLockError};

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getpid};

use crate::error::{Error, Result, number};

/// The mount points at or below `path`, a directory reached through the mount with the id `mount`.
///
/// Also those which are seen only through another mount of the same filesystem: the kernel refuses to remove the
/// directory under them as well.
pub(crate) fn below(path: &Path, mount: u64) -> Result<Vec<PathBuf>> {
    static TABLE: Mutex<Option<Table>> = Mutex::new(None);
    let mut table = match TABLE.try_lock() {
        Ok(table) => table,
        // A panic elsewhere left a whole table or none.
        Err(TryLockError::Poisoned(table)) => table.into_inner(),
        // Another thread reads it, or one that a fork left behind did: then for good.
        Err(TryLockError::WouldBlock) => return Ok(find(&Table::read()?.mounts, path, mount)),
    };
    if let Some(known) = &*table
        && known.is_current()
        && known.mounts.iter().any(|known| known.id == mount)
    {
        return Ok(find(&known.mounts, path, mount));
    }
    let fresh = Table::read()?;
    let found = find(&fresh.mounts, path, mount);
    *table = Some(fresh);
    Ok(found)
}

/// mountinfo as it was read, and the descriptor that tells when it changes: to read it takes 1.5 us a mount, and a host
/// of many trees has many.
///
/// Whichever namespace it is of: a table with the mount through which a tree is reached is the right one for the tree.
struct Table {
    file: File,
    /// A forked process shares the descriptor, and only one of the two would be told of a change.
    process: Pid,
    mounts: Vec<Mount>,
}

impl Table {
    fn read() -> Result<Self> {
        // The door: one fixed name.
        let name = "/proc/thread-self/mountinfo";
        let failed = |errno| Error::os("look for mounts in", name, errno).hinted("mount /proc");
        let fd = open(name, OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty()).map_err(failed)?;
        let mut file = File::from(fd);
        let mut text = Vec::with_capacity(16 << 10);
        file.read_to_end(&mut text).map_err(|error| failed(number(&error)))?;
        let mounts = text.split(|byte| *byte == b'\n').filter_map(parse).collect();
        Ok(Self { file, process: getpid(), mounts })
    }

    /// Whether nothing was mounted or unmounted since (`poll(2)`, see proc_pid_mountinfo(5)).
    fn is_current(&self) -> bool {
        let mut changed = [PollFd::new(&self.file, PollFlags::PRI)];
        self.process == getpid() && poll(&mut changed, Some(&Timespec::default())) == Ok(0)
    }
}

/// One line of mountinfo, as far as it is asked; see proc_pid_mountinfo(5).
struct Mount {
    id: u64,
    parent: u64,
    device: Vec<u8>,
    /// What of its filesystem is mounted.
    root: PathBuf,
    /// Where.
    point: PathBuf,
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let mut number = || std::str::from_utf8(fields.next()?).ok()?.parse().ok();
    let (id, parent) = (number()?, number()?);
    let device = fields.next()?.to_owned();
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    Some(Mount { id, parent, device, root, point })
}

fn find(mounts: &[Mount], path: &Path, mount: u64) -> Vec<PathBuf> {
    let home = mounts.iter().find(|candidate| candidate.id == mount);
    // Where the tree is in its filesystem, whatever it is mounted as.
    let tree = home.and_then(|home| home.place(path));
    let inside = |candidate: &&Mount| {
        if candidate.point.starts_with(path) {
            return true;
        }
        let (Some(home), Some(tree)) = (home, &tree) else { return false };
        mounts
            .iter()
            .find(|parent| parent.id == candidate.parent && parent.device == home.device)
            .and_then(|parent| parent.place(&candidate.point))
            .is_some_and(|place| place.starts_with(tree))
    };
    let others = mounts.iter().filter(|candidate| candidate.id != mount);
    others.filter(inside).map(|candidate| candidate.point.clone()).collect()
}

impl Mount {
    /// Where in the filesystem a path is that leads through this mount.
    fn place(&self, path: &Path) -> Option<PathBuf> {
        Some(self.root.join(path.strip_prefix(&self.point).ok()?))
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
        let mounts: Vec<_> = TEXT.split(|byte| *byte == b'\n').filter_map(parse).collect();
        let mut found: Vec<_> = find(&mounts, Path::new(path), 21)
            .iter()
            .map(|path| path.display().to_string())
            .collect();
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

//! The kernel's table of mounts, `/proc/self/mountinfo`; see proc_pid_mountinfo(5).

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

use crate::error::{Error, ErrorKind, Result};
use crate::maker::Maker;
use crate::sys::{self, Errno};

/// The largest table that is read, in bytes: enough for some 400 000 mounts, four times what a kernel allows.
const MOST: u64 = 64 << 20;

/// Bytes that are read at once.
const BUFFER: usize = 64 << 10;

/// The mounts of a namespace, and the descriptor that reports changes: reading takes 1.5 us a mount, and a host of
/// many trees has many.
#[derive(Debug)]
pub(crate) struct Table {
    file: File,
    /// A forked process shares the descriptor, and only one of the two would learn of a change.
    read_by: Maker,
    mounts: Mounts,
}

impl Table {
    pub(crate) fn read() -> Result<Self> {
        let failed = |errno| {
            let error = Error::os("look for mounts in", sys::MOUNTINFO, errno);
            match errno {
                Errno::ENOENT => error.hinted("Mount the /proc of this pid namespace."),
                _ => error,
            }
        };
        let file = sys::mountinfo().map_err(failed)?;
        let mut lines = BufReader::with_capacity(BUFFER, (&file).take(MOST + 1));
        let (mut mounts, mut line, mut read) = (Mounts::default(), Vec::new(), 0);
        let refuse = |kind, because: String| {
            Err(Error::new(kind, "look for mounts in", sys::MOUNTINFO).because(because))
        };
        loop {
            line.clear();
            let length =
                lines.read_until(b'\n', &mut line).map_err(|error| failed(sys::number(&error)))?;
            read += u64::try_from(length).unwrap_or(u64::MAX);
            match Mount::parse(line.strip_suffix(b"\n").unwrap_or(&line)) {
                _ if length == 0 => break,
                _ if read > MOST => {
                    return refuse(ErrorKind::Limit, format!("it is larger than {MOST} bytes"));
                }
                Some(mount) => mounts.push(mount),
                // A mount that is not understood may be in the way.
                None => {
                    let line = crate::text::cut(&line);
                    return refuse(ErrorKind::Unsupported, format!("its line is unknown: {line}"));
                }
            }
        }
        drop(lines);
        Ok(Self { file, read_by: Maker::this_process(), mounts })
    }

    pub(crate) fn mounts(&self) -> &Mounts {
        &self.mounts
    }

    /// Returns true if nothing was mounted or unmounted since.
    pub(crate) fn is_current(&self) -> bool {
        self.read_by.is_this_process() && sys::is_unchanged(&self.file)
    }
}

/// Mounts by id.
#[derive(Debug, Default)]
pub(crate) struct Mounts {
    all: Vec<Mount>,
    by_id: HashMap<u64, usize>,
}

impl Mounts {
    fn push(&mut self, mount: Mount) {
        self.by_id.insert(mount.id, self.all.len());
        self.all.push(mount);
    }

    pub(crate) fn get(&self, id: u64) -> Option<&Mount> {
        self.by_id.get(&id).and_then(|index| self.all.get(*index))
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Mount> {
        self.all.iter()
    }
}

impl FromIterator<Mount> for Mounts {
    fn from_iter<I: IntoIterator<Item = Mount>>(mounts: I) -> Self {
        let mut all = Self::default();
        mounts.into_iter().for_each(|mount| all.push(mount));
        all
    }
}

/// The needed fields of one line.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) id: u64,
    pub(crate) parent: u64,
    /// Major and minor number.
    pub(crate) device: (u32, u32),
    /// The part of the filesystem that is mounted.
    pub(crate) root: PathBuf,
    /// The mount point.
    pub(crate) point: PathBuf,
}

impl Mount {
    /// Parses a line without the newline.
    pub(crate) fn parse(line: &[u8]) -> Option<Self> {
        let mut fields = line.split(|byte| *byte == b' ');
        let (id, parent) = (number(fields.next()?)?, number(fields.next()?)?);
        let mut device = fields.next()?.splitn(2, |byte| *byte == b':');
        let device = (number(device.next()?)?, number(device.next()?)?);
        let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
        // A filesystem without a path of its own has another root: `net:[4026531840]`.
        point.is_absolute().then_some(Self { id, parent, device, root, point })
    }

    /// Returns the path inside the mounted filesystem for a `path` that leads through this mount.
    pub(crate) fn place(&self, path: &Path) -> Option<PathBuf> {
        Some(self.root.join(path.strip_prefix(&self.point).ok()?))
    }
}

fn number<T: std::str::FromStr>(field: &[u8]) -> Option<T> {
    std::str::from_utf8(field).ok()?.parse().ok()
}

/// Undoes `\\040` and the like.
fn unescape(field: &[u8]) -> PathBuf {
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = |digits: &[u8]| {
            digits.iter().try_fold(0_u8, |value, digit| match digit {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(digit - b'0'),
                _ => None,
            })
        };
        match tail.get(..3).filter(|_| first == b'\\').and_then(octal) {
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
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_real_table_is_read() {
        let table = Table::read().unwrap();
        assert!(table.mounts().iter().any(|mount| mount.point == Path::new("/")));
    }

    #[test]
    fn odd_lines_are_handled() {
        let mount =
            Mount::parse(b"22 21 0:4 net:[4026531840] /run/a\\012\\377\\9 rw - nsfs nsfs rw");
        let mount = mount.unwrap();
        assert_eq!(mount.point.as_os_str().as_encoded_bytes(), b"/run/a\n\xff\\9");
        for bad in [
            &b""[..],
            b"22",
            b"x 21 0:4 / /",
            b"22 21 0 / /",
            b"22 21 0:4 / relative",
            b"22 21 0:4 /",
        ] {
            assert_eq!(Mount::parse(bad), None, "{}", String::from_utf8_lossy(bad));
        }
    }

    proptest! {
        #[test]
        fn mount_points_are_unescaped(bytes in proptest::collection::vec(1_u8.., 0..40)) {
            let point = [b"/", &bytes[..]].concat();
            let escaped: Vec<u8> = point
                .iter()
                .flat_map(|byte| match byte {
                    b' ' | b'\t' | b'\n' | b'\\' | b'#' => format!("\\{byte:03o}").into_bytes(),
                    byte => vec![*byte],
                })
                .collect();
            let line = [b"30 21 254:0 / ", &escaped[..], b" rw - ext4 /dev/vda rw"].concat();
            let mount = Mount::parse(&line).unwrap();
            prop_assert_eq!(mount.point.as_os_str().as_encoded_bytes(), &point[..]);
        }
    }
}

//! The archive a kernel unpacks as its first root: cpio's "newc" format, as in the kernel's
//! `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read as _, Write};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const LINK: u32 = 0o120_000;

/// An archive being written. Everything in it is root's; directories on the way to an entry are made as it is added.
#[derive(Debug)]
pub(super) struct Archive<W> {
    out: W,
    entries: u32,
    directories: BTreeSet<String>,
}

impl<W: Write> Archive<W> {
    pub(super) fn new(out: W) -> Self {
        Self { out, entries: 0, directories: BTreeSet::new() }
    }

    /// Adds the directory `path` and those it lies in, 0755.
    pub(super) fn directory(&mut self, path: &str) -> Result<()> {
        let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
        for end in ends {
            if self.directories.insert(path[..end].to_owned()) {
                self.header(&path[..end], DIRECTORY | 0o755, 0)?;
            }
        }
        Ok(())
    }

    /// Adds a regular file, 0755, with the content of the host's file `from`.
    pub(super) fn program(&mut self, path: &str, from: &Path) -> Result<()> {
        let mut copy = || -> Result<()> {
            let file = File::open(from)?;
            let length = file.metadata()?.len();
            self.parent(path)?;
            self.header(path, REGULAR | 0o755, length)?;
            let copied = io::copy(&mut file.take(length), &mut self.out)?;
            ensure!(copied == length, "it shrank while it was read");
            self.pad(length)
        };
        copy().with_context(|| format!("add {} to the initramfs", from.display()))
    }

    /// Adds a regular file with these bytes.
    pub(super) fn bytes(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        self.parent(path)?;
        self.entry(path, REGULAR | mode, bytes)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, target: &str) -> Result<()> {
        self.parent(path)?;
        self.entry(path, LINK | 0o777, target.as_bytes())
    }

    /// Ends the archive and gives back what it was written to.
    pub(super) fn finish(mut self) -> Result<W> {
        self.header("TRAILER!!!", 0, 0)?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn parent(&mut self, path: &str) -> Result<()> {
        match path.rsplit_once('/') {
            Some((parent, _)) => self.directory(parent),
            None => Ok(()),
        }
    }

    fn entry(&mut self, path: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        let length = u64::try_from(bytes.len())?;
        self.header(path, mode, length)?;
        self.out.write_all(bytes)?;
        self.pad(length)
    }

    fn header(&mut self, path: &str, mode: u32, length: u64) -> Result<()> {
        debug_assert!(!path.starts_with('/'), "{path}: paths in an archive are relative");
        self.entries += 1;
        let length = u32::try_from(length).context("a file of 4 GiB does not fit")?;
        let name = u32::try_from(path.len() + 1)?;
        // inode, mode, uid, gid, links, mtime, size, device, special device, name with its NUL, checksum
        let fields = [self.entries, mode, 0, 0, 1, 0, length, 0, 0, 0, 0, name, 0];
        self.out.write_all(b"070701")?;
        for field in fields {
            write!(self.out, "{field:08x}")?;
        }
        self.out.write_all(path.as_bytes())?;
        self.out.write_all(b"\0")?;
        self.pad(110 + u64::from(name))
    }

    /// Headers and contents both begin at a multiple of four.
    fn pad(&mut self, written: u64) -> Result<()> {
        for _ in written..written.next_multiple_of(4) {
            self.out.write_all(b"\0")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_is_padded_and_directories_come_first_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.bytes("a/b/c", 0o644, b"hello").expect("add a file");
        archive.link("a/b/d", "c").expect("add a link");
        let bytes = archive.finish().expect("end");

        let mut names = Vec::new();
        let mut at = 0;
        while at < bytes.len() {
            let field = |n: usize| {
                let digits = &bytes[at + 6 + 8 * n..][..8];
                let digits = std::str::from_utf8(digits).expect("digits");
                usize::from_str_radix(digits, 16).expect("hexadecimal")
            };
            assert_eq!(&bytes[at..at + 6], b"070701");
            let (size, name) = (field(6), field(11));
            names.push(String::from_utf8_lossy(&bytes[at + 110..][..name - 1]).into_owned());
            at = (at + 110 + name).next_multiple_of(4);
            if names.last().is_some_and(|name| name == "a/b/c") {
                assert_eq!(&bytes[at..at + size], b"hello");
            }
            at = (at + size).next_multiple_of(4);
        }
        assert_eq!(names, ["a", "a/b", "a/b/c", "a/b/d", "TRAILER!!!"]);
    }
}

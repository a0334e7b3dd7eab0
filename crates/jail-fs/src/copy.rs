//! The content of a fresh file: FICLONE, else a copy that keeps holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::unistd::{Whence, ftruncate, lseek};
use rustix::fs::{copy_file_range, ioctl_ficlone};

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result, errno, number};
use crate::options::{CopyOptions, Progress};
use crate::receipt::{Fallback, Strategy};

/// Bytes between two reports of progress.
const STEP: u64 = 16 << 20;

/// Bytes that are read and written at once where the kernel cannot copy: what stays in a second-level cache.
const BUFFER: usize = 256 << 10;

const OPERATION: &str = "copy";

/// What filling a file took.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) strategy: Strategy,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) copied: u64,
}

/// Gives the empty file `to` the source's content, which must not change meanwhile.
pub(crate) fn fill(source: &Artifact, to: &File, options: &CopyOptions<'_>) -> Result<Filled> {
    let filled = match ioctl_ficlone(to, source).map_err(errno) {
        Ok(()) => Filled { strategy: Strategy::Reflink, fallback: None, copied: 0 },
        // Also EINVAL: a filesystem may share whole blocks only, or not into this file.
        Err(
            errno @ (Errno::EOPNOTSUPP
            | Errno::EXDEV
            | Errno::EINVAL
            | Errno::ENOTTY
            | Errno::EPERM),
        ) => {
            let fallback = if errno == Errno::EXDEV {
                Fallback::OtherFilesystem
            } else {
                Fallback::NotSupported
            };
            let copied = Copy::new(source, to, options).run()?;
            Filled { strategy: Strategy::SparseCopy, fallback: Some(fallback), copied }
        }
        Err(errno) => return Err(source.failed("share blocks of", errno)),
    };
    source.expect_unchanged(OPERATION)?;
    if options.wants_fsync() {
        to.sync_all()
            .map_err(|error| source.failed("write to the disk the copy of", number(&error)))?;
    }
    Ok(filled)
}

struct Copy<'a> {
    source: &'a Artifact,
    from: &'a File,
    to: &'a File,
    options: &'a CopyOptions<'a>,
    size: u64,
    copied: u64,
    /// None while the kernel copies.
    buffer: Option<Vec<u8>>,
}

impl<'a> Copy<'a> {
    fn new(source: &'a Artifact, to: &'a File, options: &'a CopyOptions<'a>) -> Self {
        let size = source.stamp().size;
        Self { source, from: source.file(), to, options, size, copied: 0, buffer: None }
    }

    /// Copies the data segments, and leaves the holes holes; returns the bytes written.
    fn run(mut self) -> Result<u64> {
        let size = i64::try_from(self.size).map_err(|_| self.failed(Errno::EFBIG))?;
        // All of the holes at once.
        ftruncate(self.to, size).map_err(|errno| self.failed(errno))?;
        let mut position = 0;
        while let Some((start, end)) = self.segment(position)? {
            self.tell(start)?;
            position = start;
            while position < end {
                position += self.some(position, (end - position).min(STEP))?;
                self.tell(position)?;
            }
        }
        Ok(self.copied)
    }

    /// The next data at or after `position` (SEEK_DATA, SEEK_HOLE); all of the rest where that is not known.
    fn segment(&self, position: u64) -> Result<Option<(u64, u64)>> {
        if position >= self.size {
            return Ok(None);
        }
        let seek = |position: u64, whence| {
            let position = i64::try_from(position).map_err(|_| Errno::EFBIG)?;
            lseek(self.from, position, whence).map(|found| u64::try_from(found).unwrap_or(0))
        };
        let start = match seek(position, Whence::SeekData) {
            Ok(start) => start,
            Err(Errno::ENXIO) => return Ok(None),
            Err(Errno::EINVAL) => return Ok(Some((position, self.size))),
            Err(errno) => return Err(self.failed(errno)),
        };
        let end = seek(start, Whence::SeekHole).map_err(|errno| self.failed(errno))?;
        Ok((start < self.size).then_some((start, end.min(self.size))))
    }

    /// Copies up to `length` bytes; how many of the source are done.
    fn some(&mut self, position: u64, length: u64) -> Result<u64> {
        if self.buffer.is_none() {
            match self.in_kernel(position, length) {
                Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {
                    self.buffer = Some(vec![0; BUFFER]);
                }
                Ok(0) => return Err(self.shrunk()),
                Ok(done) => {
                    self.copied += done;
                    return Ok(done);
                }
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        self.by_hand(position, length)
    }

    /// `copy_file_range(2)`: works on one filesystem, and shares blocks where it can.
    fn in_kernel(&self, position: u64, length: u64) -> std::result::Result<u64, Errno> {
        let (mut from, mut to) = (position, position);
        let length = usize::try_from(length).unwrap_or(BUFFER);
        let done = copy_file_range(self.from, Some(&mut from), self.to, Some(&mut to), length)
            .map_err(errno)?;
        Ok(u64::try_from(done).unwrap_or(0))
    }

    /// Reads and writes; a block of zeroes becomes a hole.
    fn by_hand(&mut self, position: u64, length: u64) -> Result<u64> {
        let mut buffer = self.buffer.take().unwrap_or_default();
        let answer = self.through(&mut buffer, position, length);
        self.buffer = Some(buffer);
        answer
    }

    fn through(&mut self, buffer: &mut [u8], start: u64, length: u64) -> Result<u64> {
        let mut done = 0;
        while done < length {
            let room = usize::try_from(length - done).unwrap_or(buffer.len()).min(buffer.len());
            let position = start + done;
            let read = match self.from.read_at(&mut buffer[..room], position) {
                Ok(0) => return Err(self.shrunk()),
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(self.failed(number(&error))),
            };
            let block = &buffer[..read];
            let length = u64::try_from(read).unwrap_or(0);
            if !is_zero(block) {
                self.to
                    .write_all_at(block, position)
                    .map_err(|error| self.failed(number(&error)))?;
                self.copied += length;
            }
            done += length;
        }
        Ok(done)
    }

    fn tell(&self, position: u64) -> Result<()> {
        let progress = Progress { position, size: self.size, copied: self.copied };
        if self.options.tell(progress).is_continue() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, OPERATION, self.source.path()).because(self.so_far()))
    }

    fn failed(&self, errno: Errno) -> Error {
        self.source.failed(OPERATION, errno).because(self.so_far())
    }

    fn shrunk(&self) -> Error {
        Error::new(ErrorKind::SourceChanged, OPERATION, self.source.path())
            .because("it became shorter meanwhile")
    }

    fn so_far(&self) -> String {
        let needed = self.source.facts().allocated.min(self.size);
        format!("{} bytes were copied, of about {needed} in a file of {}", self.copied, self.size)
    }
}

/// Whether all bytes are 0, sixteen at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

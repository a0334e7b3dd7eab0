//! The content of a fresh file: FICLONE, else a copy that keeps holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nix::errno::Errno;
use nix::sys::statfs::{EXT4_SUPER_MAGIC, fstatfs};
use nix::unistd::{Whence, ftruncate, lseek};
use rustix::fs::{FallocateFlags, copy_file_range, fallocate, ioctl_ficlone};

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result, errno, number};
use crate::options::{CopyOptions, Progress};
use crate::receipt::{Fallback, Strategy};

/// Bytes between two reports of progress.
const STEP: u64 = 16 << 20;

/// Bytes that are read at once where the kernel cannot copy.
const BLOCK: usize = 1 << 20;

/// Bytes of zeroes that become a hole.
const PIECE: usize = 64 << 10;

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
        Err(errno) => {
            return Err(source.failed("share blocks of", errno).because(so_far(source, 0)));
        }
    };
    source.expect_unchanged(OPERATION)?;
    if options.wants_fsync() {
        to.sync_all().map_err(|error| {
            source
                .failed("write to the disk the copy of", number(&error))
                .because(so_far(source, filled.copied))
        })?;
    }
    Ok(filled)
}

/// How far a copy got, and how much it needs.
pub(crate) fn so_far(source: &Artifact, copied: u64) -> String {
    let size = source.stamp().size;
    let needed = source.facts().allocated.min(size);
    format!("{copied} bytes were copied, of about {needed} in a file of {size}")
}

/// Again, where only a signal came in between.
fn uninterrupted<T>(
    mut call: impl FnMut() -> rustix::io::Result<T>,
) -> std::result::Result<T, Errno> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            answer => return answer.map_err(errno),
        }
    }
}

struct Copy<'a> {
    source: &'a Artifact,
    from: &'a File,
    to: &'a File,
    options: &'a CopyOptions<'a>,
    size: u64,
    copied: u64,
    /// None while the kernel copies.
    by_hand: Option<ByHand>,
}

/// What copying takes where the kernel cannot.
struct ByHand {
    block: Vec<u8>,
    /// Whether blocks are allocated before they are written: a third faster on ext4, slower on xfs and btrfs.
    preallocate: bool,
}

impl<'a> Copy<'a> {
    fn new(source: &'a Artifact, to: &'a File, options: &'a CopyOptions<'a>) -> Self {
        let size = source.stamp().size;
        Self { source, from: source.file(), to, options, size, copied: 0, by_hand: None }
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
        if self.by_hand.is_none() {
            match self.in_kernel(position, length) {
                // 0: the end, or a filesystem that has no other way to say no. Reading tells which.
                Ok(0) | Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {}
                Ok(done) => {
                    self.copied += done;
                    return Ok(done);
                }
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        let mut by_hand = match self.by_hand.take() {
            Some(by_hand) => by_hand,
            None => ByHand::new(self.to).map_err(|errno| self.failed(errno))?,
        };
        let done = self.one_block(&mut by_hand, position, length);
        self.by_hand = Some(by_hand);
        done
    }

    /// `copy_file_range(2)`: works on one filesystem, and shares blocks where it can.
    fn in_kernel(&self, position: u64, length: u64) -> std::result::Result<u64, Errno> {
        let length = usize::try_from(length).unwrap_or(BLOCK);
        let done = uninterrupted(|| {
            let (mut from, mut to) = (position, position);
            copy_file_range(self.from, Some(&mut from), self.to, Some(&mut to), length)
        })?;
        Ok(u64::try_from(done).unwrap_or(0))
    }

    /// Reads and writes once; zeroes become holes.
    fn one_block(&mut self, by_hand: &mut ByHand, position: u64, length: u64) -> Result<u64> {
        let room = usize::try_from(length).unwrap_or(BLOCK).min(BLOCK);
        let read = loop {
            match self.from.read_at(&mut by_hand.block[..room], position) {
                Ok(0) => return Err(self.shrunk()),
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(number(&error))),
            }
        };
        let pieces: Vec<_> = by_hand.block[..read].chunks(PIECE).collect();
        let mut at = position;
        for run in pieces.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
            let bytes: usize = run.iter().map(|piece| piece.len()).sum();
            let length = u64::try_from(bytes).unwrap_or(0);
            if run.first().is_some_and(|piece| !is_zero(piece)) {
                let from = usize::try_from(at - position).unwrap_or(0);
                by_hand
                    .write(self.to, &by_hand.block[from..from + bytes], at)
                    .map_err(|errno| self.failed(errno))?;
                self.copied += length;
            }
            at += length;
        }
        Ok(at - position)
    }

    fn tell(&self, position: u64) -> Result<()> {
        let progress = Progress { position, size: self.size, copied: self.copied };
        if self.options.tell(progress).is_continue() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, OPERATION, self.source.path())
            .because(so_far(self.source, self.copied)))
    }

    fn failed(&self, errno: Errno) -> Error {
        self.source.failed(OPERATION, errno).because(so_far(self.source, self.copied))
    }

    fn shrunk(&self) -> Error {
        Error::new(ErrorKind::SourceChanged, OPERATION, self.source.path())
            .because("it became shorter meanwhile")
    }
}

impl ByHand {
    fn new(to: &File) -> std::result::Result<Self, Errno> {
        let preallocate = fstatfs(to)?.filesystem_type() == EXT4_SUPER_MAGIC;
        Ok(Self { block: vec![0; BLOCK], preallocate })
    }

    fn write(&self, to: &File, bytes: &[u8], at: u64) -> std::result::Result<(), Errno> {
        if self.preallocate {
            let length = u64::try_from(bytes.len()).unwrap_or(0);
            match uninterrupted(|| fallocate(to, FallocateFlags::KEEP_SIZE, at, length)) {
                // ext3, and ext4 files without extents.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(errno) => return Err(errno),
            }
        }
        to.write_all_at(bytes, at).map_err(|error| number(&error))
    }
}

/// Whether all bytes are 0, sixteen at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<16>();
    words.iter().all(|word| u128::from_ne_bytes(*word) == 0) && rest.iter().all(|byte| *byte == 0)
}

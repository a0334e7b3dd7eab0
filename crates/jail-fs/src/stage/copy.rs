//! The content of a fresh file: FICLONE, else a copy that keeps holes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use super::artifact::Artifact;
use super::options::{CopyOptions, Progress};
use super::receipt::{Fallback, Strategy};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::sys::{self, Errno};
use crate::text::Escaped;

/// Bytes between two reports of progress.
const STEP: u64 = 16 << 20;

/// Bytes that are read at once if the kernel does not copy.
const BLOCK: usize = 1 << 20;

/// Bytes of zeroes that become a hole.
const PIECE: usize = 64 << 10;

const OPERATION: &str = "copy";

/// The outcome of filling a file.
#[derive(Debug)]
pub(crate) struct Filled {
    pub(crate) strategy: Strategy,
    pub(crate) fallback: Option<Fallback>,
    pub(crate) copied: u64,
}

/// Gives the empty file `to` the source's content, which must not change meanwhile.
pub(crate) fn fill(source: &Artifact, to: &File, options: &CopyOptions<'_>) -> Result<Filled> {
    let filled = match sys::clone_blocks(source, to) {
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
    source.expect_end(OPERATION)?;
    if options.wants_fsync() {
        to.sync_all().map_err(|error| {
            source
                .failed("write to the disk the copy of", sys::number(&error))
                .because(so_far(source, filled.copied))
        })?;
    }
    Ok(filled)
}

/// Describes the progress and the need of a copy.
pub(crate) fn so_far(source: &Artifact, copied: u64) -> String {
    let size = source.stamp().size;
    let needed = source.facts().allocated.min(size);
    let path = Escaped(source.path());
    format!("{copied} bytes were copied, of about {needed} in a file of {size}, {path}")
}

struct Copy<'a> {
    source: &'a Artifact,
    from: &'a File,
    to: &'a File,
    options: &'a CopyOptions<'a>,
    size: u64,
    copied: u64,
    /// None while the kernel copies.
    buffered: Option<Buffered>,
}

/// The buffer of a copy that the kernel declines to make.
struct Buffered {
    block: Vec<u8>,
    /// Allocate blocks before writing.
    preallocate: bool,
}

impl<'a> Copy<'a> {
    fn new(source: &'a Artifact, to: &'a File, options: &'a CopyOptions<'a>) -> Self {
        let size = source.stamp().size;
        Self { source, from: source.file(), to, options, size, copied: 0, buffered: None }
    }

    /// Copies the data segments, and leaves the holes holes; returns the bytes written.
    fn run(mut self) -> Result<u64> {
        sys::truncate(self.to, self.size).map_err(|errno| self.failed(errno))?;
        let mut position = 0;
        let next = |this: &Self, position| {
            sys::next_extent(this.from, position, this.size).map_err(|errno| this.failed(errno))
        };
        while let Some((start, end)) = next(&self, position)? {
            self.report(start)?;
            position = start;
            while position < end {
                position += self.copy_chunk(position, (end - position).min(STEP))?;
                self.report(position)?;
            }
        }
        Ok(self.copied)
    }

    /// Copies up to `length` bytes; returns how many of the source are done.
    fn copy_chunk(&mut self, position: u64, length: u64) -> Result<u64> {
        if self.buffered.is_none() && !self.options.wants_holes() {
            let bytes = usize::try_from(length).unwrap_or(BLOCK);
            match sys::copy_range(self.from, self.to, position, bytes) {
                // 0: the end, or a filesystem that has no other way to decline. Reading shows which.
                Ok(0) | Err(Errno::EXDEV | Errno::EOPNOTSUPP | Errno::ENOSYS | Errno::EINVAL) => {}
                Ok(done) => {
                    self.copied += done;
                    return Ok(done);
                }
                Err(errno) => return Err(self.failed(errno)),
            }
        }
        let mut buffered = match self.buffered.take() {
            Some(buffered) => buffered,
            None => Buffered::new(self.to).map_err(|errno| self.failed(errno))?,
        };
        let done = self.one_block(&mut buffered, position, length);
        self.buffered = Some(buffered);
        done
    }

    /// Copies one block; a block of zeroes becomes a hole.
    fn one_block(&mut self, buffered: &mut Buffered, position: u64, length: u64) -> Result<u64> {
        let room = usize::try_from(length).unwrap_or(BLOCK).min(BLOCK);
        let read = loop {
            match self.from.read_at(&mut buffered.block[..room], position) {
                Ok(0) => return Err(self.shrunk()),
                Ok(read) => break read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.failed(sys::number(&error))),
            }
        };
        let pieces: Vec<_> = buffered.block[..read].chunks(PIECE).collect();
        let mut at = position;
        for run in pieces.chunk_by(|one, next| is_zero(one) == is_zero(next)) {
            let bytes: usize = run.iter().map(|piece| piece.len()).sum();
            let length = u64::try_from(bytes).unwrap_or(0);
            if run.first().is_some_and(|piece| !is_zero(piece)) {
                let from = usize::try_from(at - position).unwrap_or(0);
                buffered
                    .write(self.to, &buffered.block[from..from + bytes], at)
                    .map_err(|errno| self.failed(errno))?;
                self.copied += length;
            }
            at += length;
        }
        Ok(at - position)
    }

    fn report(&self, position: u64) -> Result<()> {
        let progress = Progress { position, size: self.size, copied: self.copied };
        if self.options.report(progress).is_continue() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Cancelled, OPERATION, self.source.path())
            .because(so_far(self.source, self.copied)))
    }

    fn failed(&self, errno: Errno) -> Error {
        self.source.failed(OPERATION, errno).because(so_far(self.source, self.copied))
    }

    /// Makes the error of a source that is shorter than the reported size: truncated meanwhile, or a file on sysfs.
    fn shrunk(&self) -> Error {
        let error = |kind| Error::new(kind, OPERATION, self.source.path());
        match Facts::of(self.from) {
            Ok(now) if now.size == self.size => error(ErrorKind::Untrusted)
                .because(format!("it has less content than its size of {} bytes", self.size))
                .hinted("Copy the content to a file on a disk or tmpfs, and stage that."),
            _ => error(ErrorKind::SourceChanged).because("it became shorter meanwhile"),
        }
    }
}

impl Buffered {
    fn new(to: &File) -> std::result::Result<Self, Errno> {
        Ok(Self { block: vec![0; BLOCK], preallocate: sys::prefers_allocation(to)? })
    }

    fn write(&self, to: &File, bytes: &[u8], at: u64) -> std::result::Result<(), Errno> {
        if self.preallocate {
            sys::allocate(to, at, u64::try_from(bytes.len()).unwrap_or(0))?;
        }
        to.write_all_at(bytes, at).map_err(|error| sys::number(&error))
    }
}

/// Compares all bytes with 0, sixteen at a time.
fn is_zero(bytes: &[u8]) -> bool {
    let words = bytes.chunks_exact(16);
    let rest = words.remainder();
    words.fold(0, |bits, word| word.try_into().map_or(u128::MAX, u128::from_ne_bytes) | bits) == 0
        && rest.iter().all(|byte| *byte == 0)
}

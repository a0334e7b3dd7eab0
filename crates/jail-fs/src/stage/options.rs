//! Options of a copy.

use std::fmt;
use std::ops::ControlFlow;

/// Options of a copy: whether it must survive a power cut, and a callback for its progress.
///
/// ```
/// use std::ops::ControlFlow;
/// use std::sync::atomic::{AtomicBool, Ordering};
///
/// let stop = AtomicBool::new(false); // set from elsewhere
/// let watch = |progress: jail_fs::Progress| match stop.load(Ordering::Relaxed) {
///     true => ControlFlow::Break(()),
///     false => ControlFlow::Continue(println!("{} of {}", progress.position, progress.size)),
/// };
/// let options = jail_fs::CopyOptions::new().fsync(true).watch(&watch);
/// ```
#[derive(Clone, Copy, Default)]
pub struct CopyOptions<'a> {
    fsync: bool,
    zeroes_to_holes: bool,
    watch: Option<&'a Watch<'a>>,
}

/// A callback for the progress of a copy; a [`Break`](ControlFlow::Break) cancels it.
pub type Watch<'a> = dyn Fn(Progress) -> ControlFlow<()> + Sync + 'a;

/// The progress of a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Progress {
    /// The position in the source that is done, in bytes; holes are passed in one step.
    pub position: u64,
    /// The source's size in bytes.
    pub size: u64,
    /// The bytes written.
    pub copied: u64,
}

impl<'a> CopyOptions<'a> {
    /// Makes options without fsync and watch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether file and name are on the disk when the verb returns (`fsync(2)` on both).
    #[must_use]
    pub fn fsync(mut self, fsync: bool) -> Self {
        self.fsync = fsync;
        self
    }

    /// Sets whether a copy reads the content and leaves long runs of zeroes as holes, instead of copying in the kernel. A
    /// reflink shares the source's blocks, zeroes included.
    #[must_use]
    pub fn zeroes_to_holes(mut self, yes: bool) -> Self {
        self.zeroes_to_holes = yes;
        self
    }

    /// Calls `watch` at least every 16 MiB of a copy. When it breaks, the verb leaves nothing behind and its error is
    /// [`Cancelled`](crate::ErrorKind::Cancelled).
    #[must_use]
    pub fn watch(mut self, watch: &'a Watch<'a>) -> Self {
        self.watch = Some(watch);
        self
    }

    pub(crate) fn wants_fsync(&self) -> bool {
        self.fsync
    }

    pub(crate) fn wants_holes(&self) -> bool {
        self.zeroes_to_holes
    }

    pub(crate) fn report(&self, progress: Progress) -> ControlFlow<()> {
        self.watch.map_or(ControlFlow::Continue(()), |watch| watch(progress))
    }
}

impl fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CopyOptions")
            .field("fsync", &self.fsync)
            .field("zeroes_to_holes", &self.zeroes_to_holes)
            .field("watched", &self.watch.is_some())
            .finish()
    }
}

//! The process that made or took something.

use rustix::process::{Pid, getpid};

/// The process that made or took something, which alone may undo that: a forked child drops copies of its parent's
/// values.
#[derive(Debug)]
pub(crate) struct Maker(Pid);

impl Maker {
    pub(crate) fn this_process() -> Self {
        Self(getpid())
    }

    pub(crate) fn is_this_process(&self) -> bool {
        self.0 == getpid()
    }
}

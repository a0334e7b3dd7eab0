//! The process that made or took something.

use crate::sys;

/// The process that made or took something, and alone may undo that: a forked child drops copies of its parent's values.
#[derive(Debug)]
pub(crate) struct Maker(sys::Pid);

impl Maker {
    pub(crate) fn this_process() -> Self {
        Self(sys::pid())
    }

    pub(crate) fn is_this_process(&self) -> bool {
        self.0 == sys::pid()
    }
}

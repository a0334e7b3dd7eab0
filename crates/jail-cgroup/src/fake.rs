//! Directories of ordinary files in the place of a hierarchy, for unit tests.

mod kernel;
mod tree;

pub(crate) use kernel::{attribute, empty, fill, set_attribute, truncate, version_of};
pub(crate) use tree::{Fake, host};

//! Removing names and trees.

mod emptier;
mod mountinfo;
mod mounts;
mod remove_tree;
mod report;
mod scrub;

#[cfg(test)]
pub(crate) use self::mountinfo::Mount;
pub use self::remove_tree::remove_tree;
pub(crate) use self::remove_tree::{Found, TRASH, find, refuse_mounts, remove_aside};
pub use self::report::RemoveReport;
pub use self::scrub::scrub;

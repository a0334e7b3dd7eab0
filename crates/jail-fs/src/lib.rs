//! Stage, own and remove a directory tree that a hostile uid will own, by descriptor only.

mod artifact;
mod copy;
mod error;
mod fresh;
mod inode;
mod lease;
mod mounts;
mod name;
mod node;
mod open;
mod options;
mod owner;
mod receipt;
mod remove;
mod scrub;
mod stage;
mod sweep;
#[cfg(test)]
mod testing;
mod tree;
mod trusted;
mod unique;

pub use cap_std::fs::Dir;

pub use crate::artifact::Artifact;
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::inode::{InodeId, SourceStamp, Timestamp};
pub use crate::lease::Lease;
pub use crate::name::Name;
pub use crate::node::{Ensured, ensure_char_device};
pub use crate::open::{open_dir, open_file, read_small};
pub use crate::options::{CopyOptions, Progress, Watch};
pub use crate::owner::Owner;
pub use crate::receipt::{Fallback, Receipt, Strategy};
pub use crate::remove::{Removed, remove_tree};
pub use crate::scrub::scrub;
pub use crate::stage::{Access, block_device, persistent, private, read_only, replace, write};
pub use crate::sweep::{SweepReport, sweep};
pub use crate::tree::{Published, StagedTree};
pub use crate::trusted::{MountFlags, TrustedDir};

//! Stage, own and remove a directory tree that a hostile uid will own, by descriptor only.
//!
//! A process that runs as root and prepares a tree for someone it does not trust is one link away from giving the host
//! away: the owner of the tree plants links, swaps directories and races every step. This crate does the file work of
//! such a process so that none of that reaches a file outside. It knows directories, artifacts and owners, and nothing
//! of what they are for.
//!
//! # In two minutes
//! ```
//! use jail_fs::{Artifact, CopyOptions, Name, Owner, StagedTree, TrustedDir, private, read_only, remove_tree, sweep};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let scratch = tempfile::tempdir()?;
//! # let host = scratch.path();
//! # std::os::unix::fs::symlink("elsewhere", host.join("link"))?;
//! # for image in ["vmlinux", "rootfs.ext4"] { std::fs::write(host.join(image), "bytes")?; }
//! // A base that no one else can change, each ancestor included; made where it is missing.
//! let base = TrustedDir::create(&host.join("jails"))?;
//! let user = Owner::caller(); // as root: Owner::new(61_000, 61_000)?
//!
//! // Aside, where no one looks, then under its name by one rename: a tree is whole or not there.
//! let tree = StagedTree::create(&base, &Name::try_from("one")?)?;
//! let root = tree.make_dir("root", user, 0o700)?;
//! let options = CopyOptions::new();
//! let kernel = Artifact::open(&host.join("vmlinux"))?;
//! let shared = read_only(&kernel, &root, &Name::try_from("vmlinux")?, user, &options)?;
//! let disk = Artifact::open(&host.join("rootfs.ext4"))?;
//! let copied = private(&disk, &root, &Name::try_from("rootfs.ext4")?, user, &options)?;
//! println!("{}, {} ({} bytes copied)", shared.strategy, copied.strategy, copied.bytes_copied);
//! let one = tree.publish()?;
//!
//! // Refused before anything is touched where something is mounted in it, or another tree took its place.
//! remove_tree(&base, &Name::try_from("one")?, Some(one.dir.id()))?;
//!
//! // What a killed process had begun.
//! sweep(&base)?;
//! # Ok(())
//! # }
//! ```
//!
//! # The verbs
//! | to | call |
//! |---|---|
//! | hold a directory that can be trusted, and tell when its path leads elsewhere | [`TrustedDir`] |
//! | make a tree, publish it, put it in another's place | [`StagedTree`] |
//! | open what is to be staged | [`Artifact`] |
//! | stage it: shared, copied, the very file, a device | [`read_only`], [`private`], [`persistent`], [`block_device`] |
//! | write a small file, whole | [`write()`] |
//! | make a character device node, or accept the right one | [`ensure_char_device`] |
//! | look into a tree that someone else owns | [`open_dir`], [`open_file`], [`read_small`] |
//! | be the only user of a tree | [`Lease`] |
//! | remove names, a tree, what the dead left | [`scrub`], [`remove_tree`], [`sweep`] |
//!
//! # What holds
//! - The only paths that are walked are the caller's: a [`TrustedDir`]'s, a component at a time, and an [`Artifact`]'s.
//!   Whatever is in a tree is named by one [`Name`] below a held directory, and what is there is opened by
//!   [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html) with `RESOLVE_BENEATH`, `NO_SYMLINKS`,
//!   `NO_MAGICLINKS` and `NO_XDEV`, never by anything weaker.
//! - An owner or a mode is changed only by the descriptor of an inode that the same call created; the one exception is
//!   [`persistent`] with an explicit owner. There is no recursive chown.
//! - An existing file is never opened for writing. A file that is staged has no name until it is whole, or is in a tree
//!   that has none.
//! - A removal follows no link, crosses no mount, and takes five descriptors and constant memory for any tree.
//! - What fails leaves nothing behind, and says operation, path, cause and remedy: [`Error`].
//! - What is killed leaves nothing under a name that is looked for, and the rest to a [`sweep`].
//!
//! # What it does not do
//! It starts no process, mounts nothing, and makes no tree safe *for* its owner. It does not stop those who go on
//! writing to a tree that is being removed: stop them first. A lease keeps off those who ask for it.
//!
//! # Needs
//! Linux 5.8 (`openat2`, mount ids in `statx`), `/proc`, and for staging a filesystem with `O_TMPFILE`. Root for other
//! owners and device nodes; a caller who is not root gets as far as the kernel lets him, in a base of his own.
//!
//! # Features
//! `serde`: receipts, reports, owners and inode ids can be serialised.

mod base;
mod error;
#[cfg(test)]
mod fuzz;
mod inode;
mod maker;
mod name;
mod owner;
mod remove;
mod stage;
mod sys;
#[cfg(test)]
mod testing;
mod text;
mod tree;
mod unique;

pub use cap_std::fs::Dir;

pub use crate::base::{MountFlags, TrustedDir, open_dir, open_file, read_small};
pub use crate::error::{Error, ErrorKind, Result};
pub use crate::inode::{InodeId, SourceStamp, Timestamp};
pub use crate::name::Name;
pub use crate::owner::Owner;
pub use crate::remove::{RemoveReport, remove_tree, scrub};
pub use crate::stage::{
    Access, Artifact, CopyOptions, Ensured, Fallback, Loan, Progress, Receipt, StagedDir,
    StagingDir, Strategy, Watch, block_device, ensure_char_device, make_fifo, open_fifo,
    persistent, private, read_only, return_persistent, write,
};
pub use crate::tree::{Lease, Published, StagedTree, SweepFailure, SweepReport, sweep};

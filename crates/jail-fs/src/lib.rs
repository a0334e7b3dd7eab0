//! Stage, own and remove a directory tree that a hostile uid will own, by descriptor only.
//!
//! A process that runs as root and prepares a tree for an untrusted user is one link away from giving the host away: the
//! owner of the tree plants links, swaps directories and races every step. This crate does the file work of such a
//! process so that no file outside the tree is reached. The crate works on directories, artifacts and owners; the
//! purpose of the tree is the caller's.
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
//! // A base that nobody else can change, each ancestor included; missing directories are made.
//! let base = TrustedDir::create(&host.join("jails"))?;
//! let user = Owner::caller(); // as root: Owner::new(61_000, 61_000)?
//!
//! // Staged aside, then published by one rename: a tree is whole or absent.
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
//! // Refused, before anything is touched, if something is mounted in the tree or another tree took its place.
//! remove_tree(&base, &Name::try_from("one")?, Some(one.dir.id()))?;
//!
//! // Removes the trees that killed processes left.
//! sweep(&base)?;
//! # Ok(())
//! # }
//! ```
//!
//! # The verbs
//! | to | call |
//! |---|---|
//! | hold a trusted directory, and notice when its path leads elsewhere | [`TrustedDir`] |
//! | make a tree, publish it, put it in another's place, discard it | [`StagedTree`] |
//! | open a source | [`Artifact`] |
//! | stage a source: shared, copied, the very file, a device, a socket | [`read_only`], [`private`], [`persistent`], [`block_device`], [`socket`] |
//! | copy a file of a tree for others to share, share such a file | [`archive`], [`share`] |
//! | stage the very file in two steps, with the receipt stored between | [`link_persistent`], [`lend_persistent`] |
//! | give a persistent file back to its owner | [`return_persistent`] |
//! | write a small file, whole | [`write()`] |
//! | make a character device node, or accept the right one | [`ensure_char_device`] |
//! | make and open a FIFO | [`make_fifo`], [`open_fifo`] |
//! | look into a tree that somebody else owns | [`open_dir`], [`open_file`], [`read_small`] |
//! | be the only user of a tree | [`Lease`] |
//! | remove names, a tree, the rests of killed processes | [`scrub`], [`remove_tree`], [`sweep`] |
//!
//! # Guarantees
//! - Only two kinds of paths are walked, both the caller's: a [`TrustedDir`]'s, a component at a time, and an
//!   [`Artifact`]'s. Everything in a tree is named by one [`Name`] below a held directory, and opened by
//!   [openat2(2)](https://man7.org/linux/man-pages/man2/openat2.2.html) with `RESOLVE_BENEATH`, `NO_SYMLINKS`,
//!   `NO_MAGICLINKS` and `NO_XDEV`, never by a weaker call.
//! - An owner or a mode is changed only by the descriptor of an inode that the same call created. The exceptions are
//!   [`persistent`] with an explicit owner and [`return_persistent`], on the inode that they hold, and a [`Lease`], which
//!   closes its directory to others. There is no recursive chown.
//! - An existing file is never opened for writing. A staged file has no name until it is whole, or is in a tree that has
//!   no name yet.
//! - A removal follows no link, crosses no mount, and takes five descriptors and constant memory for any tree.
//! - A failed call leaves nothing behind, or names what it could not remove ([`Error::left_behind`]). An [`Error`] has
//!   operation, path, cause and hint.
//! - A killed process leaves no half-made tree under a published name; its rests are for a [`sweep`].
//!
//! # Limits
//! The crate starts no process, mounts nothing, and makes no tree safe *for* its owner. Processes that write to a tree
//! must be stopped before the tree is removed. A lease keeps out only processes that ask for one.
//!
//! # Requirements
//! Linux 5.8 (`openat2`, mount ids in `statx`), `/proc`, and for staging a filesystem with `O_TMPFILE`. Other owners and
//! device nodes need root; everything else works for any caller with a base of its own.
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
    StagingDir, Strategy, Watch, archive, block_device, ensure_char_device, lend_persistent,
    link_persistent, make_fifo, open_fifo, persistent, private, read_only, return_persistent,
    share, socket, write,
};
pub use crate::tree::{Lease, Published, StagedTree, SweepFailure, SweepReport, sweep};

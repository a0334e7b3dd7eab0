//! Trees that are made aside and published whole.

use std::path::Path;

use cap_std::fs::Dir;

use super::lease::Lease;
use crate::base::{TrustedDir, open_dir};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{Facts, InodeId};
use crate::maker::Maker;
use crate::name::Name;
use crate::owner::Owner;
use crate::remove::{self, RemoveReport};
use crate::stage::{NewInode, StagedDir, StagingDir, take_back_dir};
use crate::sys::{self, Errno};
use crate::unique::unique;

/// Prefix of the names of trees in the making.
pub(crate) const STAGING: &str = ".staging-";

/// The most staging directories that sweeps may take away before the lease.
const ATTEMPTS: u32 = 16;

/// A tree in the making: a directory beside its future name, the caller's own and 0700, under a lease that shows a
/// [`sweep`](crate::sweep) that its maker lives.
///
/// # Caveats
/// A dropped tree is removed as far as possible, without a report; the rest is for a sweep. Call
/// [`publish`](Self::publish) or [`discard`](Self::discard). A copy that is dropped in a forked child removes nothing.
#[derive(Debug)]
pub struct StagedTree {
    name: Name,
    // In the order they must go: the tree, then its lease, so that no sweep meddles.
    aside: Aside,
    lease: Lease,
}

/// The name of a tree in the making.
#[derive(Debug)]
struct Aside {
    parent: TrustedDir,
    name: Name,
    /// The inode to remove on drop; `None` once it is published.
    made: Option<InodeId>,
    made_by: Maker,
}

/// A published tree.
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// The tree's own directory; the lease holds the same descriptor.
    pub dir: TrustedDir,
    /// The lease of that directory, held since the beginning.
    pub lease: Lease,
    /// The removal of the replaced tree. After a failure the rest of that tree is aside, for a
    /// [`sweep`](crate::sweep): report the error.
    pub replaced: Option<Result<RemoveReport>>,
}

impl StagedTree {
    /// Begins a tree that is to be called `name` in `parent` (`mkdirat(2)`, `flock(2)`).
    ///
    /// # Errors
    /// The answers of mkdirat and flock. A taken `name` is found by [`publish`](Self::publish).
    pub fn create(parent: &TrustedDir, name: &Name) -> Result<Self> {
        let mut gone = None;
        for _ in 0..ATTEMPTS {
            let aside = unique(STAGING, name)
                .map_err(|errno| Error::os("stage tree", parent.path().join(name), errno))?;
            match Self::begin(parent, name, aside) {
                // A sweep was faster.
                Ok(None) => {}
                Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Busy) => {
                    gone = Some(error);
                }
                Ok(Some(tree)) => return Ok(tree),
                Err(error) => return Err(error),
            }
        }
        Err(gone.unwrap_or_else(|| {
            Error::new(ErrorKind::Busy, "stage tree", parent.path().join(name))
                .because("a sweep took it away")
        }))
    }

    /// Tries once; `None` if the directory is gone once it is leased.
    fn begin(parent: &TrustedDir, name: &Name, aside: Name) -> Result<Option<Self>> {
        let inode = NewInode::dir(parent.dir(), &aside)?;
        let id = inode.id();
        let made_by = Maker::this_process();
        let aside = Aside { parent: parent.clone(), name: aside, made: Some(id), made_by };
        match aside.lease(inode) {
            Ok(Some(lease)) => Ok(Some(Self { name: name.clone(), aside, lease })),
            Ok(None) => Ok(None),
            Err(error) => Err(error.after(aside.remove().map(drop))),
        }
    }

    /// Returns the tree's own directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        self.lease.dir().dir()
    }

    /// Returns the tree's own directory, to stage into.
    #[must_use]
    pub fn top(&self) -> StagingDir<'_> {
        StagingDir::private(self.dir())
    }

    /// Returns the path of the tree in the making.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.lease.dir().path()
    }

    /// Returns the identity of the tree's own directory, which stays when the tree is published.
    #[must_use]
    pub fn id(&self) -> InodeId {
        self.lease.dir().id()
    }

    /// Makes the directory `path` in the tree, below directories that were made before, with this owner and mode. Nobody
    /// else can reach the directory until the tree is published, so it may be given away at once.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path without a last component;
    /// [`AlreadyExists`](ErrorKind::AlreadyExists); the answers of mkdirat, fchown and fchmod.
    pub fn make_dir(
        &self,
        path: impl AsRef<Path>,
        owner: Owner,
        mode: u32,
    ) -> Result<StagedDir<'_>> {
        let path = path.as_ref();
        let Some(name) = path.file_name() else {
            return Err(Error::new(ErrorKind::InvalidInput, "create directory", path)
                .because("it has no name"));
        };
        let name = Name::try_from(name)?;
        let above = match path.parent() {
            Some(above) if above != Path::new("") => Some(open_dir(self.dir(), above)?),
            _ => None,
        };
        let above = above.as_ref().unwrap_or(self.dir());
        let inode = NewInode::dir(above, &name)?;
        inode
            .give((above, &name), owner, mode)
            .map_err(|error| error.after(take_back_dir(above, &name)))?;
        let id = inode.id();
        Ok(StagedDir::new(inode.into_fd().into(), id))
    }

    /// Gives the tree the final name, by one rename (`renameat2(2)` with `RENAME_NOREPLACE`). Its own directory stays the
    /// caller's and 0700.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) for a taken name; the tree is then removed.
    pub fn publish(self) -> Result<Published> {
        let (dir, from, to) = (self.aside.parent.dir(), &self.aside.name, &self.name);
        match sys::rename_new((dir, from.as_os_str()), (dir, to.as_os_str())) {
            Ok(()) => Ok(self.published(None)),
            Err(errno) => {
                let error = self.failed("publish tree", errno);
                let error = match errno {
                    Errno::EEXIST => error.because("the name is taken"),
                    _ => error,
                };
                Err(error.after(self.discard().map(drop)))
            }
        }
    }

    /// Puts the tree in the place of the tree `old` of the same name, by one rename (`renameat2(2)` with
    /// `RENAME_EXCHANGE`), then removes the old tree as [`remove_tree`](crate::remove_tree) does.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) without an old tree; [`Replaced`](ErrorKind::Replaced) for another inode than
    /// `old`; [`Mounted`](ErrorKind::Mounted) if something is mounted in the old tree. The old tree is then as it was,
    /// and this one is removed.
    pub fn exchange(self, old: InodeId) -> Result<Published> {
        match self.take_place(old) {
            Ok(found) => {
                let removed = remove::remove_aside(&self.aside.parent, &self.aside.name, &found);
                Ok(self.published(Some(removed)))
            }
            Err(error) => Err(error.after(self.discard().map(drop))),
        }
    }

    /// Exchanges the names; returns the old tree, which is then aside.
    fn take_place(&self, old: InodeId) -> Result<remove::Found> {
        let operation = "exchange tree";
        let Aside { parent, name: aside, .. } = &self.aside;
        let path = parent.path().join(&self.name);
        let exchange = || {
            sys::exchange(parent.dir(), aside.as_os_str(), self.name.as_os_str())
                .map_err(|errno| self.failed(operation, errno))
        };
        remove::refuse_mounts(operation, &path, parent)?;
        exchange()?;
        let error = match remove::find(parent, aside) {
            Ok(Some(found)) if found.facts.id == old => return Ok(found),
            Ok(_) => Error::new(ErrorKind::Replaced, operation, path)
                .because(format!("its inode is not {old}, as was expected")),
            Err(error) => error,
        };
        Err(error.after(exchange()))
    }

    /// Removes the tree instead of publishing.
    ///
    /// # Errors
    /// As [`remove_tree`](crate::remove_tree); the rest is for a [`sweep`](crate::sweep).
    pub fn discard(mut self) -> Result<RemoveReport> {
        let removed = self.aside.remove();
        self.aside.made = None;
        removed
    }

    fn failed(&self, operation: &'static str, errno: Errno) -> Error {
        Error::os(operation, self.aside.parent.path().join(&self.name), errno)
    }

    fn published(mut self, replaced: Option<Result<RemoveReport>>) -> Published {
        self.aside.made = None;
        self.lease.move_to(self.aside.parent.path().join(&self.name));
        Published { dir: self.lease.dir().clone(), lease: self.lease, replaced }
    }
}

impl Aside {
    /// Takes the lease of the directory that was just made; `None` if a sweep took the directory away before.
    fn lease(&self, inode: NewInode) -> Result<Option<Lease>> {
        inode.set_mode((self.parent.dir(), &self.name), 0o700)?;
        let (id, facts) = (inode.id(), *inode.facts());
        let path = self.parent.path().join(&self.name);
        let lease = Lease::lock(TrustedDir::from_parts(inode.into_fd(), path, &facts))?;
        let now = Facts::at(self.parent.dir(), self.name.as_os_str())?;
        Ok((now.id == id).then_some(lease))
    }

    /// Removes the tree that this value made, if the staging name still leads to that tree.
    fn remove(&self) -> Result<RemoveReport> {
        match remove::find(&self.parent, &self.name)? {
            Some(found) if Some(found.facts.id) == self.made => {
                remove::remove_aside(&self.parent, &self.name, &found)
            }
            _ => Ok(RemoveReport::default()),
        }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        if self.made.is_some() && self.made_by.is_this_process() {
            // Best effort, as documented: a drop has nobody to report to, and a sweep finds what stays.
            let _ = self.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::write;
    use crate::testing::trusted;
    use crate::tree::Lease;

    fn name(name: &str) -> Name {
        Name::try_from(name).unwrap()
    }

    #[test]
    fn a_tree_appears_whole() {
        let (_tmp, parent) = trusted();
        let tree = StagedTree::create(&parent, &name("one")).unwrap();
        let root = tree.make_dir("root", Owner::caller(), 0o700).unwrap();
        tree.make_dir("root/dev", Owner::caller(), 0o711).unwrap();
        write(&root, &name("file"), b"x", Owner::caller(), 0o600).unwrap();
        let id = tree.id();
        assert!(!parent.entries().unwrap().contains(&name("one")));
        let published = tree.publish().unwrap();
        assert_eq!((published.dir.id(), parent.entries().unwrap()), (id, vec![name("one")]));
        assert_eq!(parent.child(&name("one")).unwrap().id(), id);
        assert_eq!(Lease::try_acquire(&published.dir).unwrap_err().kind(), ErrorKind::Busy);
        published.dir.verify_path().unwrap();

        let again = StagedTree::create(&parent, &name("one")).unwrap();
        again.make_dir("root", Owner::caller(), 0o700).unwrap();
        assert_eq!(again.publish().unwrap_err().kind(), ErrorKind::AlreadyExists);
        assert_eq!(parent.entries().unwrap(), [name("one")], "the loser leaves nothing");
    }

    #[test]
    fn exchange_expects_the_old_tree() {
        let (_tmp, parent) = trusted();
        let first = StagedTree::create(&parent, &name("one")).unwrap().publish().unwrap();
        let wrong = StagedTree::create(&parent, &name("one")).unwrap();
        assert_eq!(wrong.exchange(parent.id()).unwrap_err().kind(), ErrorKind::Replaced);
        assert_eq!(parent.child(&name("one")).unwrap().id(), first.dir.id());
        let second =
            StagedTree::create(&parent, &name("one")).unwrap().exchange(first.dir.id()).unwrap();
        assert_eq!(second.replaced.unwrap().unwrap().entries, 1);
        assert_eq!(parent.child(&name("one")).unwrap().id(), second.dir.id());
        assert_eq!(parent.entries().unwrap(), [name("one")]);
        let none = StagedTree::create(&parent, &name("two")).unwrap();
        assert_eq!(none.exchange(first.dir.id()).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_dropped_tree_leaves_nothing() {
        let (_tmp, parent) = trusted();
        let tree = StagedTree::create(&parent, &name("one")).unwrap();
        tree.make_dir("root", Owner::caller(), 0o700).unwrap();
        drop(tree);
        assert_eq!(parent.entries().unwrap(), []);
        let tree = StagedTree::create(&parent, &name("one")).unwrap();
        tree.make_dir("root", Owner::caller(), 0o700).unwrap();
        assert_eq!(tree.discard().unwrap().entries, 2);
        assert_eq!(parent.entries().unwrap(), []);
    }
}

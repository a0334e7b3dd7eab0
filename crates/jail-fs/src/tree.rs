//! Trees that are made aside and published whole.

use std::path::Path;

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::{RenameFlags, renameat2};

use crate::error::{Error, ErrorKind, Result};
use crate::fresh::{Fresh, take_back_dir};
use crate::inode::{Facts, InodeId};
use crate::lease::Lease;
use crate::maker::Maker;
use crate::name::Name;
use crate::open;
use crate::owner::Owner;
use crate::place::{Place, StagedDir};
use crate::remove::{self, Removed};
use crate::trusted::TrustedDir;
use crate::unique::unique;

/// Trees that are being made are called this and something.
pub(crate) const STAGING: &str = ".staging-";

/// How often a sweep may take a staging directory away in the moment before it is leased.
const ATTEMPTS: u32 = 16;

/// A tree in the making: a directory beside its future name, the caller's own and 0700, under a lease that tells a
/// [`sweep`](crate::sweep) that its maker lives.
///
/// # Caveats
/// Dropped, it removes what was made, as far as it can; what stays is for a sweep. Call [`publish`](Self::publish).
#[derive(Debug)]
pub struct StagedTree {
    name: Name,
    // In the order they must go: the tree, then its lease, so that no sweep meddles.
    aside: Aside,
    lease: Lease,
}

/// A tree's name while it is made.
#[derive(Debug)]
struct Aside {
    parent: TrustedDir,
    name: Name,
    /// What to remove on drop; None once it is published.
    made: Option<InodeId>,
    made_by: Maker,
}

/// A tree under its name.
#[derive(Debug)]
#[non_exhaustive]
pub struct Published {
    /// Its own directory; the lease holds the same descriptor.
    pub dir: TrustedDir,
    /// The lease of that directory, held since it was made.
    pub lease: Lease,
    /// What became of the tree in whose place it was put; a failure leaves that one to a [`sweep`](crate::sweep).
    pub replaced: Option<Result<Removed>>,
}

impl StagedTree {
    /// Begins a tree that is to be called `name` in `parent` (`mkdirat(2)`, `flock(2)`).
    ///
    /// # Errors
    /// What mkdirat answers. That `name` is taken is found out by [`publish`](Self::publish).
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

    /// One try; None if the directory is not there any more once it is leased.
    fn begin(parent: &TrustedDir, name: &Name, aside: Name) -> Result<Option<Self>> {
        let fresh = Fresh::dir(parent.dir(), &aside)?;
        let id = fresh.id();
        // From here on, whatever fails removes it again.
        let aside = Aside {
            parent: parent.clone(),
            name: aside,
            made: Some(id),
            made_by: Maker::this_process(),
        };
        fresh.set_mode((parent.dir(), &aside.name), 0o700)?;
        let facts = *fresh.facts();
        let path = parent.path().join(&aside.name);
        let dir = TrustedDir::from_parts(fresh.into_fd(), path, &facts);
        let lease = Lease::lock(dir)?;
        match Facts::at(parent.dir(), aside.name.as_ref()) {
            Ok(now) if now.id == id => Ok(Some(Self { name: name.clone(), aside, lease })),
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Its own directory.
    #[must_use]
    pub fn dir(&self) -> &Dir {
        self.lease.dir().dir()
    }

    /// Its own directory, as one to stage into.
    #[must_use]
    pub fn top(&self) -> Place<'_> {
        Place::ours_alone(self.dir())
    }

    /// Where it is while it is made.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.lease.dir().path()
    }

    /// Its own directory's identity, which stays when it is published.
    #[must_use]
    pub fn id(&self) -> InodeId {
        self.lease.dir().id()
    }

    /// Makes the directory `path` in the tree, below directories that were made before, with this owner and mode. No
    /// one else can reach it until the tree is published, so it may be given away at once.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a path without a last component;
    /// [`AlreadyExists`](ErrorKind::AlreadyExists); what mkdirat, fchown and fchmod answer.
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
            Some(above) if above != Path::new("") => Some(open::open_dir(self.dir(), above)?),
            _ => None,
        };
        let above = above.as_ref().unwrap_or(self.dir());
        let fresh = Fresh::dir(above, &name)?;
        fresh.give((above, &name), owner, mode).inspect_err(|_| take_back_dir(above, &name))?;
        let id = fresh.id();
        Ok(StagedDir::new(fresh.into_fd().into(), id))
    }

    /// Gives the tree its name, by one rename (`renameat2(2)` with `RENAME_NOREPLACE`); its own directory stays
    /// the caller's and 0700.
    ///
    /// # Errors
    /// [`AlreadyExists`](ErrorKind::AlreadyExists) where the name is taken; the tree is then removed.
    pub fn publish(self) -> Result<Published> {
        self.rename(RenameFlags::RENAME_NOREPLACE)?;
        Ok(self.published(None))
    }

    /// Puts the tree in the place of the one of its name whose inode is `old`, by one rename (`renameat2(2)` with
    /// `RENAME_EXCHANGE`), then removes that one as [`remove_tree`](crate::remove_tree) does.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) where there is none; [`Replaced`](ErrorKind::Replaced) where it is another;
    /// [`Mounted`](ErrorKind::Mounted) where something is mounted in it. The old tree is then as it was.
    pub fn exchange(self, old: InodeId) -> Result<Published> {
        let operation = "exchange tree";
        let (parent, aside) = (self.aside.parent.clone(), self.aside.name.clone());
        let path = parent.path().join(&self.name);
        remove::refuse_mounts(operation, &path, &parent)?;
        self.rename(RenameFlags::RENAME_EXCHANGE)?;
        match remove::find(&parent, &aside) {
            Ok(Some(found)) if found.facts.id == old => {
                Ok(self.published(Some(remove::remove_aside(&parent, &aside, found))))
            }
            other => {
                self.rename(RenameFlags::RENAME_EXCHANGE)?;
                other?;
                Err(Error::new(ErrorKind::Replaced, operation, path)
                    .because(format!("its inode is not {old}, as was expected")))
            }
        }
    }

    fn rename(&self, how: RenameFlags) -> Result<()> {
        let failed =
            |errno| Error::os("publish tree", self.aside.parent.path().join(&self.name), errno);
        let (dir, from, to) =
            (self.aside.parent.dir(), self.aside.name.as_os_str(), self.name.as_os_str());
        renameat2(dir, from, dir, to, how).map_err(|errno| match errno {
            Errno::EEXIST => failed(errno).because("the name is taken"),
            _ => failed(errno),
        })
    }

    fn published(mut self, replaced: Option<Result<Removed>>) -> Published {
        self.aside.made = None;
        self.lease.move_to(self.aside.parent.path().join(&self.name));
        Published { dir: self.lease.dir().clone(), lease: self.lease, replaced }
    }
}

impl Drop for Aside {
    fn drop(&mut self) {
        // Only if it is still this very tree, and not in a forked child.
        if let Some(made) = self.made
            && self.made_by.is_this_process()
            && let Ok(Some(found)) = remove::find(&self.parent, &self.name)
            && found.facts.id == made
        {
            let _ = remove::remove_aside(&self.parent, &self.name, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stage::write;
    use crate::testing::trusted;

    fn name(name: &str) -> Name {
        Name::try_from(name).unwrap()
    }

    #[test]
    fn a_tree_appears_whole_or_not_at_all() {
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
    fn a_tree_takes_the_place_of_the_expected_one_only() {
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
    fn dropped_it_leaves_nothing() {
        let (_tmp, parent) = trusted();
        let tree = StagedTree::create(&parent, &name("one")).unwrap();
        tree.make_dir("root", Owner::caller(), 0o700).unwrap();
        drop(tree);
        assert_eq!(parent.entries().unwrap(), []);
    }
}

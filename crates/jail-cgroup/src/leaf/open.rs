//! Opening a leaf by id, and proving the owner.

use crate::dir::Dir;
use crate::leaf::members;
use crate::leaf::owner::{Claim, Owner};
use crate::leaf::{Group, HierarchyPath, Leaf, LeafId};
use crate::sys::Errno;
use crate::{CgroupVersion, Error, ErrorKind, Host, Result};

impl LeafId {
    /// Opens the leaf if the leaf still exists; `None` if it exists in no hierarchy (openat2(2)).
    ///
    /// A leaf with an owner is opened only if each of its directories carries the owner's mark. A creation that was cut
    /// short leaves a directory without a mark, without processes and without groups below; such a directory is opened too. A
    /// directory without a mark that has groups below is another program's, and counts as missing.
    ///
    /// # Errors
    /// - [`Foreign`](ErrorKind::Foreign) if a directory carries another owner's mark, or has processes and no mark.
    /// - [`Unsupported`](ErrorKind::Unsupported) if the mount namespace of the caller does not show one of the hierarchies.
    ///   The leaf may exist there.
    /// - Any other kind if a directory exists and cannot be opened.
    pub fn open(&self, host: &Host) -> Result<Option<Leaf>> {
        let mut groups = Vec::new();
        for path in &self.paths {
            let Some((mount, below)) = path.find(self.version, host) else {
                if host.may_have(self.version, path.controllers()) {
                    return Err(not_shown(self.version, path));
                }
                // Without the hierarchy there is no group.
                continue;
            };
            let top = mount.open()?;
            if let Some(dir) = top.open_if_exists(&below)? {
                if let Some(owner) = &self.owner {
                    let claim = refuse_foreign("open the leaf", &dir, self.version, owner)?;
                    // The creation of a leaf that was cut short leaves no group below.
                    if claim == Claim::None && dir.has_subdirs()? {
                        continue;
                    }
                }
                let full_path = mount.root().join(&below);
                groups.push(Group { path: path.clone(), mount: top, below, full_path, dir });
            }
        }
        let leaf = Leaf { id: self.clone(), groups, writes: Vec::new() };
        Ok((!leaf.groups.is_empty()).then_some(leaf))
    }
}

fn not_shown(version: CgroupVersion, path: &HierarchyPath) -> Error {
    let names: Vec<_> =
        path.controllers().iter().map(|controller| controller.name(version)).collect();
    let (hierarchy, command) = match version {
        CgroupVersion::V1 => {
            let names = names.join(",");
            (format!("the v1 hierarchy of {names}"), format!("mount -t cgroup -o {names} none"))
        }
        CgroupVersion::V2 => ("the v2 hierarchy".to_owned(), "mount -t cgroup2 none".to_owned()),
    };
    Error::new(ErrorKind::Unsupported, "open the leaf")
        .at(path.dir())
        .because(format!("no mount of this mount namespace shows this part of {hierarchy}"))
        .hinted(format!(
            "Use the mount namespace in which the leaf was made, or mount the hierarchy: {command} {}.",
            path.mount().display()
        ))
}

impl Leaf {
    /// Checks the owner again and returns the groups that are proven to be the owner's. A group without a claim is
    /// empty, and another creator may claim it at any time.
    pub(super) fn owned_groups(&self, operation: &'static str) -> Result<Vec<&Group>> {
        let Some(owner) = &self.id.owner else { return Ok(self.groups.iter().collect()) };
        let mut owned = Vec::new();
        for group in &self.groups {
            if refuse_foreign(operation, &group.dir, self.id.version, owner)?.is_of(owner) {
                owned.push(group);
            }
        }
        Ok(owned)
    }

    /// Claims directories without a claim, which a creation of the same owner left when it was cut short.
    pub(super) fn claim_rest(&self, operation: &'static str) -> Result<()> {
        let Some(owner) = &self.id.owner else { return Ok(()) };
        for group in &self.groups {
            if refuse_foreign(operation, &group.dir, self.id.version, owner)? == Claim::None {
                match Claim::make(&group.dir, Some(owner)) {
                    Err(error) if error.errno() == Some(Errno::EXIST) => {}
                    Err(error) if error.is_gone() => continue,
                    done => done?,
                }
                refuse_foreign(operation, &group.dir, self.id.version, owner)?;
            }
        }
        Ok(())
    }
}

/// Refuses a directory that is not `owner`'s, and returns the claim. A directory without a claim and without processes
/// is accepted.
fn refuse_foreign(
    operation: &'static str,
    dir: &Dir,
    version: CgroupVersion,
    owner: &Owner,
) -> Result<Claim> {
    let claim = Claim::read(dir)?;
    let accepted = match &claim {
        Claim::None => members::is_empty(dir, version)?,
        claim => claim.is_of(owner),
    };
    if accepted {
        return Ok(claim);
    }
    Err(Error::new(ErrorKind::Foreign, operation)
        .at(dir.path())
        .because(format!("the leaf has {claim}, not the owner {owner}"))
        .hinted("Choose another name or parent for one of the two leaves."))
}

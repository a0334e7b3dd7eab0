//! One copy of a snapshot's memory per chroot base, for all restores on a base that the snapshot cannot be linked into.

use jail_fs::{Artifact, CopyOptions, Name, StagedTree, TrustedDir};

use crate::error::{Error, Result};
use crate::jail::remove::{HostProblem, RemoveReport};

/// The directory of the copies in the chroot base. No exec file's directory begins with a dot.
const COPIES: &str = ".snapshots";

/// The copy's name in a directory of its own, which appears by one rename.
const COPY: &str = "memory";

/// Returns the file to link into a jail below `base`: the source itself on the same filesystem, else the base's copy of the
/// source, which is made by the first restore.
pub(super) fn on_base(
    base: &TrustedDir,
    source: Artifact,
    options: &CopyOptions,
) -> Result<Artifact> {
    if source.stamp().inode.dev() == base.id().dev() {
        return Ok(source);
    }
    let failed = |error| Error::files("share the snapshot's memory", error);
    let copies = base.create_child(&Name::try_from(COPIES)?).map_err(failed)?;
    let name = name_of(&source)?;
    if let Some(copy) = find(&copies, &name)? {
        return Ok(copy);
    }
    let tree = StagedTree::create(&copies, &name).map_err(failed)?;
    jail_fs::archive(&source, tree.top(), &Name::try_from(COPY)?, options).map_err(failed)?;
    match tree.publish() {
        Ok(_) => {}
        // Another restore was faster.
        Err(error) if error.kind() == jail_fs::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(failed(error)),
    }
    find(&copies, &name)?.ok_or_else(|| {
        Error::new(crate::ErrorKind::NotFound, "share the snapshot's memory")
            .path(copies.path().join(&name))
            .because("a sweep has removed it")
            .hinted("Restore again.")
    })
}

/// Names a copy by what the source is: another content of the same file has another time or size.
fn name_of(source: &Artifact) -> Result<Name> {
    let stamp = source.stamp();
    let (major, minor) = stamp.inode.dev();
    Ok(Name::try_from(format!(
        "{major}-{minor}-{}-{}-{}-{}",
        stamp.inode.ino(),
        stamp.size,
        stamp.mtime.seconds,
        stamp.mtime.nanoseconds
    ))?)
}

fn find(copies: &TrustedDir, name: &Name) -> Result<Option<Artifact>> {
    let opened =
        copies.child(name).and_then(|dir| Artifact::open_in(dir.dir(), &Name::try_from(COPY)?));
    match opened {
        Ok(copy) => Ok(Some(copy)),
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::files("share the snapshot's memory", error)),
    }
}

/// Removes the copies that no jail has, and the rests of killed launchers.
pub(super) fn sweep(base: &TrustedDir, report: &mut RemoveReport, problems: &mut Vec<HostProblem>) {
    let Ok(copies) = Name::try_from(COPIES).and_then(|name| base.child(&name)) else { return };
    let mut problem = |error| {
        let failure = Error::files("sweep the copies of snapshots", error);
        problems.push(HostProblem::new(copies.path(), &failure));
    };
    if let Err(error) = jail_fs::sweep(&copies) {
        problem(error);
    }
    let names = match copies.entries() {
        Ok(names) => names,
        Err(error) => return problem(error),
    };
    for name in
        names.into_iter().filter(|name| name.as_str().is_some_and(|name| !name.starts_with('.')))
    {
        let Ok(Some(copy)) = find(&copies, &name) else { continue };
        if copy.names() > 1 {
            continue;
        }
        match jail_fs::remove_tree(&copies, &name, None) {
            Ok(removed) => report.entries += removed.entries,
            Err(error) => problem(error),
        }
    }
}

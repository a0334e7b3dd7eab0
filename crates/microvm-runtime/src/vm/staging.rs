//! Staging a file into the jail of a running VM.

use std::path::Path;

use jail_cmd::ArtifactName;
use jail_fs::{CopyOptions, Dir, Owner, Receipt};

use crate::error::{Error, ErrorKind, Result};
use crate::jail::prepare::{open_artifact, stage};
use crate::plan::PlannedArtifact;
use crate::random_name::random_name;
use crate::spec::drive::DriveKind;
use crate::sys::{Errno, file};
use crate::vm::Vm;

/// A file that was staged into a running jail.
pub(super) struct StagedFile {
    root: Dir,
    name: String,
    receipt: Receipt,
}

impl StagedFile {
    /// Stages `source` into the jail of `vm` under a fresh name that begins with the device's id.
    ///
    /// The VM owns the jail's root, and can rename and unlink the file at any time. No inode that exists is opened or
    /// changed: a file is made without a name and linked when it is whole, a shared file is linked only if the VM can
    /// neither write to it nor own it, and a taken name is an error.
    pub(super) fn new(
        vm: &Vm,
        (id, source, kind): (&str, &Path, DriveKind),
        options: &CopyOptions<'_>,
    ) -> Result<Self> {
        let operation = format!("stage {id:?} into the running jail");
        if kind == DriveKind::Persistent {
            return Err(Error::new(ErrorKind::Unsupported, operation)
                .path(source)
                .because("a persistent file is lent to a jail before the VM starts")
                .hinted("Name the file in the spec, or stage a private copy."));
        }
        if !source.is_absolute() {
            return Err(Error::invalid(operation, "the source is not absolute")
                .path(source)
                .hinted("Give an absolute path."));
        }
        let record = &vm.record;
        let name = random_name(id);
        let artifact = PlannedArtifact {
            name: ArtifactName::new(name.as_str(), &record.exec_name)?,
            source: source.to_owned(),
            kind,
        };
        let opened = open_artifact(&artifact)?;
        let root = vm.root()?;
        let owner = Owner::new(record.uid, record.gid)?;
        let receipt = stage(&artifact, &opened, (&root, (&root).into()), owner, options)?;
        Ok(Self { root, name, receipt })
    }

    /// Returns the file's path in the jail.
    pub(super) fn path(&self) -> String {
        format!("/{}", self.name)
    }

    /// Returns the receipt of a file that Firecracker has opened. A file that Firecracker refused loses its name; what the
    /// VM has put in its place goes with the jail.
    pub(super) fn announce(self, opened: Result<()>) -> Result<Receipt> {
        match opened {
            Ok(()) => Ok(self.receipt),
            Err(failure) => {
                let removed = match file::unlink(&self.root, &self.name) {
                    // The VM may have removed the name.
                    Err(Errno::NOENT) => Ok(()),
                    removed => removed.map_err(|errno| {
                        let operation = "remove a file that was staged into the running jail";
                        Error::new(ErrorKind::Filesystem, operation)
                            .path(&self.name)
                            .source_of(errno)
                    }),
                };
                Err(failure.and_cleanup(removed))
            }
        }
    }
}

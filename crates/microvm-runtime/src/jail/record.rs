//! The record of a jail, kept beside the jail, outside the reach of the VM. `jail.json` describes the prepared files.
//! `vmm.json` names the VMM process; an empty `vmm.json` means that a jailer was about to be started.
//!
//! We never rename over an existing file: ext4 then flushes synchronously, and a launch would wait.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use jail_cgroup::LeafId;
use jail_cmd::{ExecName, JailId};
use jail_fs::{Dir, InodeId, Name, Owner, StagedTree, TrustedDir};
use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;
use crate::plan::host_file::Program;
use crate::plan::record_size::MAX_BYTES;
use crate::spec::JailSpec;
use crate::sys::file;
use crate::vmm::{self, ProcessStamp};

/// The files' names in the jail's directory, beside `root/`.
const JAIL: &str = "jail.json";
const VMM: &str = "vmm.json";

/// The record of a jail.
///
/// The files belong to root, in a directory that only root can enter. The record contains past actions; the present
/// state comes from the kernel.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Record {
    format: u32,
    pub(crate) vm_id: String,
    pub(crate) jail_id: JailId,
    pub(crate) exec_name: ExecName,
    pub(crate) spec: JailSpec,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) uid_leased: bool,
    origin: Origin,
    /// The inode of `root/`.
    pub(crate) root: InodeId,
    pub(crate) receipts: Vec<jail_fs::Receipt>,
    pub(crate) leaf: Option<LeafId>,
    /// True if every process of the jail was spawned into the leaf, as this crate does. Then membership proves that a
    /// process belongs to the jail.
    pub(crate) born_in_leaf: bool,
    /// The jailer that is to be started.
    pub(crate) jailer: Option<InodeId>,
    /// Told by the other file.
    #[serde(skip)]
    pub(crate) progress: Progress,
}

/// The place of a record, without which the record could describe another jail's VM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The inode of the jail's directory.
    dir: InodeId,
    /// The inode of the launcher's pid namespace, which gives the pids their meaning.
    pid_namespace: u64,
}

impl Origin {
    /// Returns the origin of a record that this process writes into the directory `dir`.
    pub(crate) fn here(dir: InodeId) -> Result<Self> {
        Ok(Self { dir, pid_namespace: vmm::pid_namespace()? })
    }
}

/// The progress of a jail.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Staged; the jailer was not started by us.
    #[default]
    Prepared,
    /// The jailer was, or was about to be, started.
    Starting,
    /// The VMM runs, or ran, as this process.
    Started(ProcessStamp),
}

impl Record {
    const FORMAT: u32 = 4;

    pub(crate) fn new(
        plan: &Plan,
        leaf: Option<LeafId>,
        (uid, gid, uid_leased): (u32, u32, bool),
        (origin, root): (Origin, InodeId),
        receipts: Vec<jail_fs::Receipt>,
    ) -> Self {
        Self {
            format: Self::FORMAT,
            vm_id: plan.spec.vm_id.clone(),
            jail_id: plan.jail_id.clone(),
            exec_name: plan.layout.exec_name().clone(),
            spec: plan.spec.clone(),
            uid,
            gid,
            uid_leased,
            origin,
            root,
            receipts,
            born_in_leaf: leaf.is_some() && plan.jailer.is_some(),
            leaf,
            jailer: plan
                .jailer
                .as_ref()
                .map(|jailer| &jailer.program)
                .or(plan.callers_jailer.as_ref())
                .map(Program::inode),
            progress: Progress::Prepared,
        }
    }

    /// Reads the record of the jail in `dir`.
    ///
    /// # Errors
    /// [`Record`](ErrorKind::Record) if there is none, none that can be understood, or only the copy of another jail's.
    pub(crate) fn read(held: &TrustedDir) -> Result<Self> {
        let (dir, at) = (held.dir(), held.path());
        let Some(bytes) = read(dir, at, JAIL)? else {
            return Err(damaged(at, JAIL).because("there is none"));
        };
        let mut record: Self =
            serde_json::from_slice(&bytes).map_err(|error| damaged(at, JAIL).source_of(error))?;
        if record.format != Self::FORMAT {
            let because =
                format!("its format is {}, this release reads {}", record.format, Self::FORMAT);
            return Err(damaged(at, JAIL).because(because));
        }
        record.follow_device(dir)?;
        record.progress = match read(dir, at, VMM)? {
            // Not written, or not to its end, by a launcher that was killed: the kernel knows.
            Some(bytes) => {
                serde_json::from_slice(&bytes).map_or(Progress::Starting, Progress::Started)
            }
            None => Progress::Prepared,
        };
        record.refuse_copy(held)?;
        Ok(record)
    }

    /// Replaces the recorded device number of the jail's filesystem by the present number: a reboot or another mount may
    /// have changed the number, and inodes keep theirs. The staged files are on the filesystem of the jail's directory.
    fn follow_device(&mut self, dir: &Dir) -> Result<()> {
        let now = InodeId::of(dir).map_err(|error| Error::files(READING, error))?.dev();
        let recorded = self.root.dev();
        for inode in
            self.receipts.iter_mut().map(|receipt| &mut receipt.inode).chain([&mut self.root])
        {
            if inode.dev() == recorded {
                *inode = inode.on_device(now);
            }
        }
        Ok(())
    }

    /// Refuses a record that was written into another directory: its process, leaf and drives are another jail's. A
    /// filesystem may have another device number when it is mounted again, but then nothing of the jail runs.
    fn refuse_copy(&self, held: &TrustedDir) -> Result<()> {
        let (made, now) = (self.origin.dir, held.id());
        let is_copy = made != now
            && (made.ino() != now.ino()
                || matches!(&self.progress, Progress::Started(stamp) if stamp.still_alive()?));
        if !is_copy {
            return Ok(());
        }
        Err(damaged(held.path(), JAIL).because(format!(
            "it was written into the directory {made}, and this is {now}: a copy says nothing about this jail"
        )))
    }

    /// Returns true if the recorded pid is a pid of this process's namespace, or of no process any more. If it returns false,
    /// only the leaf shows whether the VM runs.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the leaf does not show that either: a v1 group does not list processes of
    /// other pid namespaces.
    pub(crate) fn has_own_pids(&self) -> Result<bool> {
        let now = vmm::pid_namespace()?;
        if self.is_of_pid_namespace(now) {
            return Ok(true);
        }
        let is_over = match &self.progress {
            Progress::Prepared => true,
            Progress::Starting => false,
            Progress::Started(stamp) => !stamp.is_of_this_boot()?,
        };
        if is_over {
            return Ok(true);
        }
        let v2 = |leaf: &LeafId| leaf.version() == jail_cgroup::CgroupVersion::V2;
        if self.born_in_leaf && self.leaf.as_ref().is_some_and(v2) {
            return Ok(false);
        }
        Err(Error::new(ErrorKind::Unsupported, "look for the VM's processes")
            .because(format!(
                "the VM {:?} was launched from another pid namespace (pid:[{}]), and this process is in pid:[{now}]",
                self.vm_id, self.origin.pid_namespace
            ))
            .hinted("Run every launcher of a base in one pid namespace, or give the VMs control groups of v2."))
    }

    /// Returns true if the record was written in this pid namespace.
    pub(crate) fn is_of_pid_namespace(&self, namespace: u64) -> bool {
        self.origin.pid_namespace == namespace
    }

    /// Writes the record into the staged tree, completely or not at all.
    pub(crate) fn write(&self, tree: &StagedTree) -> Result<()> {
        let failed = || unwritten(tree.path(), JAIL);
        let text = serde_json::to_vec_pretty(self).map_err(|error| failed().source_of(error))?;
        if text.len() > MAX_BYTES {
            return Err(
                failed().because(format!("it has {} bytes, of at most {MAX_BYTES}", text.len()))
            );
        }
        jail_fs::write(tree.top(), &Name::try_from(JAIL)?, &text, Owner::caller(), 0o600)
            .map_err(|error| failed().source_of(error))?;
        Ok(())
    }

    /// The jailer is about to be started in the jail at `dir`.
    pub(crate) fn starting(&mut self, dir: &TrustedDir) -> Result<Starting> {
        let failed = || unwritten(dir.path(), VMM);
        let file = file::create_new(dir.dir(), VMM).map_err(|errno| failed().source_of(errno))?;
        self.progress = Progress::Starting;
        Ok(Starting(file))
    }

    /// The VMM of the jail at `dir` runs as this process.
    pub(crate) fn started(
        &mut self,
        dir: &TrustedDir,
        Starting(file): &mut Starting,
        stamp: ProcessStamp,
    ) -> Result<()> {
        let failed = || unwritten(dir.path(), VMM);
        let text = serde_json::to_vec_pretty(&stamp).map_err(|error| failed().source_of(error))?;
        file.write_all(&text).map_err(|error| failed().source_of(error))?;
        self.progress = Progress::Started(stamp);
        Ok(())
    }
}

/// The file that will name the VMM process.
#[derive(Debug)]
pub(crate) struct Starting(File);

const READING: &str = "read the record";

/// The file's content; `None` where there is no such file.
fn read(dir: &Dir, at: &Path, name: &str) -> Result<Option<Vec<u8>>> {
    match jail_fs::read_small(dir, name, MAX_BYTES as u64) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
        // What is there is no record of ours: no file, or one that is too large.
        Err(error) if error.kind() == jail_fs::ErrorKind::Untrusted => {
            Err(damaged(at, name).source_of(error))
        }
        // It may well be one, of a VM that runs.
        Err(error) => Err(Error::files(READING, error)),
    }
}

fn damaged(at: &Path, name: &str) -> Error {
    Error::new(ErrorKind::Record, READING).path(at.join(name)).hinted("Remove the jail.")
}

fn unwritten(at: &Path, name: &str) -> Error {
    Error::new(ErrorKind::Record, "write the record").path(at.join(name))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the test's own files")]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn truncated_vmm_file_means_starting() {
        let tmp = tempfile::tempdir().unwrap();
        let base = TrustedDir::create(&tmp.path().join("base")).unwrap();
        let name = Name::try_from("vm").unwrap();
        let tree = StagedTree::create(&base, &name).unwrap();
        let mut record = Record {
            format: Record::FORMAT,
            vm_id: "vm".to_owned(),
            jail_id: "vm".parse().unwrap(),
            exec_name: ExecName::new("firecracker").unwrap(),
            spec: JailSpec::new("vm", "/firecracker"),
            uid: 1,
            gid: 2,
            uid_leased: false,
            origin: Origin::here(tree.id()).unwrap(),
            root: tree.id(),
            receipts: Vec::new(),
            leaf: None,
            born_in_leaf: false,
            jailer: None,
            progress: Progress::Prepared,
        };
        record.write(&tree).unwrap();
        let dir = tree.publish().unwrap().dir;
        let read = || Record::read(&dir).unwrap();
        assert_eq!(read(), record);

        let mut starting = record.starting(&dir).unwrap();
        assert_eq!((&read(), &record.progress), (&record, &Progress::Starting));
        assert!(record.starting(&dir).is_err(), "a jail is started once");

        let me = ProcessStamp::of(std::process::id()).unwrap().unwrap();
        record.started(&dir, &mut starting, me.clone()).unwrap();
        assert_eq!((&read(), &record.progress), (&record, &Progress::Started(me)));

        let whole = fs::read(dir.path().join(VMM)).unwrap();
        fs::write(dir.path().join(VMM), &whole[..whole.len() / 2]).unwrap();
        assert_eq!(read().progress, Progress::Starting);
        fs::write(dir.path().join(JAIL), "{").unwrap();
        let error = Record::read(&dir).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Record);
    }

    #[test]
    fn a_record_survives_its_text() {
        let tmp = tempfile::tempdir().unwrap();
        let base = TrustedDir::create(&tmp.path().join("base")).unwrap();
        let name = Name::try_from("vm").unwrap();
        let tree = StagedTree::create(&base, &name).unwrap();
        let source = tmp.path().join("source");
        fs::write(&source, "x").unwrap();
        let source = jail_fs::Artifact::open(&source).unwrap();
        let (file, owner) = (Name::try_from("file").unwrap(), Owner::caller());
        let receipt =
            jail_fs::private(&source, tree.top(), &file, owner, &jail_fs::CopyOptions::default())
                .unwrap();
        let record = Record {
            format: Record::FORMAT,
            vm_id: "tenant/vm".to_owned(),
            jail_id: JailId::for_vm("tenant/vm").unwrap(),
            exec_name: ExecName::new("firecracker").unwrap(),
            spec: crate::spec::jail_spec::tests::unlike_default(),
            uid: 1,
            gid: 2,
            uid_leased: true,
            origin: Origin::here(tree.id()).unwrap(),
            root: tree.id(),
            receipts: vec![receipt],
            leaf: None,
            born_in_leaf: true,
            jailer: Some(tree.id()),
            progress: Progress::Prepared,
        };
        crate::spec::jail_spec::tests::assert_round_trip(&record, None);
    }
}

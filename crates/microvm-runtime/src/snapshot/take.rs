//! Taking a snapshot: [`Vm::snapshot`].

use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::PoisonError;

use jail_cmd::{JailerVersion, in_jail};
use jail_fs::{Dir, Name, Owner, StagedTree, TrustedDir, scrub};
use serde::Deserialize;
use serde_json::{Value, json};

use super::harvest::{Copied, Wanted, entry, harvest};
use super::manifest::{DRIVES, Manifest, devices, drive_path, is_file};
use super::open::Snapshot;
use super::options::{Afterwards, SnapshotKind, SnapshotOptions};
use super::room;
use crate::api::{Api, InstanceState};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::spec::drive::DriveKind;
use crate::spec::restore::{MEMORY, VMSTATE};
use crate::text::quoted;
use crate::trace;
use crate::vm::Vm;

const OPERATION: &str = "take the snapshot";

/// The largest state of devices and vCPUs, in bytes: Firecracker's has some 100 KiB.
const MAX_STATE: u64 = 64 << 20;

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;

impl Vm {
    /// Takes a snapshot of the VM into the directory `dir`, which must not exist; its parent must, and be root's.
    ///
    /// The guest is paused (`PATCH /vm`) while Firecracker writes memory and state into the jail (`PUT /snapshot/create`)
    /// and the drives are copied: by reflink where the filesystem can, else the data and not the holes. Then the guest runs
    /// on. What Firecracker wrote is opened by descriptor, checked, copied into fresh inodes of root's (0444), and removed
    /// from the jail. `dir` (0700) appears by one rename when all of it is there.
    ///
    /// A failure leaves no `dir`, and the guest as it was. A launcher that is killed meanwhile leaves a staging directory
    /// beside `dir`, which the next snapshot in the same parent removes, and perhaps a paused guest:
    /// [`adopt`](crate::Jailer::adopt) the VM and [`resume`](Self::resume) it. Nothing is flushed to the disk.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a guest that was not booted, a drive that is a writable block device or a
    /// vhost-user socket, a drive that was replaced or plugged at run time, and limits (`fsize`, memory) that would kill the VMM while it writes;
    /// [`Untrusted`](ErrorKind::Untrusted) if the VM has put something else in a file's place, or others can change the
    /// parent; [`Filesystem`](ErrorKind::Filesystem) if `dir` exists; [`Api`](ErrorKind::Api) and
    /// [`Timeout`](ErrorKind::Timeout) if Firecracker refuses or does not finish.
    ///
    /// # Privileges
    /// Root.
    pub fn snapshot(
        &self,
        dir: impl AsRef<Path>,
        options: &SnapshotOptions,
    ) -> VmRuntimeResult<Snapshot> {
        Ok(trace::verb("snapshot", self.vm_id(), || {
            host_check::before(Verb::Snapshot)?;
            take(self, dir.as_ref(), options)
        })?)
    }
}

fn take(vm: &Vm, dir: &Path, options: &SnapshotOptions) -> Result<Snapshot> {
    // Two snapshots at once would write to the same names in the jail.
    let _one = vm.taking.lock().unwrap_or_else(PoisonError::into_inner);
    let deadline = Deadline::after(options.within);
    refuse_devices(vm)?;
    let (parent, name) = destination(dir)?;
    let root = vm.root()?;
    let api = vm.connect(deadline)?.until(deadline);
    let mut taking = Taking::begin(vm, &root, &api, options)?;
    let failed = |error| Error::files(OPERATION, error);
    // After the checks, which change nothing.
    jail_fs::sweep(&parent).map_err(failed)?;
    let tree = StagedTree::create(&parent, &name).map_err(failed)?;
    let published = match taking.run(&tree) {
        Ok(manifest) => tree.publish().map(|tree| (tree, manifest)).map_err(failed),
        Err(failure) => Err(failure.and_cleanup(tree.discard().map_err(failed))),
    };
    match published {
        Ok((tree, manifest)) => {
            taking.finish()?;
            Ok(Snapshot::published(tree.dir, manifest))
        }
        Err(failure) => Err(failure.and_cleanup(taking.undo())),
    }
}

/// Refuses devices that no snapshot can contain.
fn refuse_devices(vm: &Vm) -> Result<()> {
    let because = |kind| match kind {
        DriveKind::BlockDevice => Some("is a block device, whose content would go on changing"),
        DriveKind::VhostUser => Some("is served by another process, whose state is unknown"),
        _ => None,
    };
    match devices(&vm.record.spec).find_map(|(name, kind)| Some((name, because(kind)?))) {
        Some((name, because)) => Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .because(format!("its drive {name:?} {because}"))
            .hinted("Use a private or persistent drive, or a shared block device.")),
        None => Ok(()),
    }
}

/// Refuses a VM whose devices are not on the spec's files any more, since the record names no others.
fn refuse_replaced(vm: &Vm, api: &Api) -> Result<()> {
    let config: Value = api.send("GET", "/vm/config", None)?.json()?;
    let paths = ["drives", "pmem"].into_iter().flat_map(|section| {
        let list = config.get(section).and_then(Value::as_array).into_iter().flatten();
        list.filter_map(|device| device.get("path_on_host")?.as_str())
    });
    let is_staged = |path: &str| {
        let name = path.strip_prefix('/');
        devices(&vm.record.spec).any(|(staged, _)| name == Some(staged))
    };
    match paths.into_iter().find(|path| !is_staged(path)) {
        None => Ok(()),
        Some(path) => Err(Error::new(ErrorKind::Unsupported, OPERATION)
            .because(format!("a drive is on {}, which is no file of the spec", quoted(path)))
            .hinted("Drives that were replaced or plugged at run time cannot be captured.")),
    }
}

/// Returns the parent of the new directory, and the name.
fn destination(dir: &Path) -> Result<(TrustedDir, Name)> {
    let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else {
        return Err(Error::invalid(OPERATION, "the directory has no name").path(dir));
    };
    let name = Name::try_from(name)?;
    let parent = TrustedDir::open(parent).map_err(|error| Error::files(OPERATION, error))?;
    match parent.child(&name) {
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok((parent, name)),
        _ => Err(Error::new(ErrorKind::Filesystem, OPERATION)
            .path(dir)
            .because("it exists")
            .hinted("Name a directory that does not exist, or remove the old snapshot first.")),
    }
}

/// A snapshot under way.
struct Taking<'a> {
    vm: &'a Vm,
    root: &'a Dir,
    api: &'a Api,
    options: &'a SnapshotOptions,
    firecracker: JailerVersion,
    /// The expected size of the memory file, in bytes.
    memory: RangeInclusive<u64>,
    /// True if the guest ran before the snapshot.
    ran: bool,
    /// True while the guest is paused by this snapshot.
    paused: bool,
}

impl<'a> Taking<'a> {
    /// Checks that the VM can write a snapshot.
    fn begin(
        vm: &'a Vm,
        root: &'a Dir,
        api: &'a Api,
        options: &'a SnapshotOptions,
    ) -> Result<Self> {
        let info = api.instance_info()?;
        if !matches!(info.state, InstanceState::Running | InstanceState::Paused) {
            return Err(Error::new(ErrorKind::Unsupported, OPERATION)
                .because("the guest was not booted")
                .hinted("Boot the guest first."));
        }
        refuse_replaced(vm, api)?;
        let firecracker = info.vmm_version.parse()?;
        let memory = memory_size(vm, api)?;
        room::check(vm, root, *memory.end())?;
        let ran = info.state == InstanceState::Running;
        Ok(Self { vm, root, api, options, firecracker, memory, ran, paused: false })
    }

    fn run(&mut self, tree: &StagedTree) -> Result<Manifest> {
        let failed = |error| Error::files(OPERATION, error);
        self.clear_names()?;
        let drives = tree.make_dir(DRIVES, Owner::caller(), 0o700).map_err(failed)?;
        // Before the request: the guest may be paused even if the answer is lost.
        self.paused = self.ran;
        if self.ran {
            self.api.pause()?;
        }
        let kind = match self.options.kind {
            SnapshotKind::Full => "Full",
            SnapshotKind::Diff => "Diff",
        };
        let request = json!({
            "snapshot_type": kind,
            "snapshot_path": format!("/{}", in_jail::TAKEN_STATE),
            "mem_file_path": format!("/{}", in_jail::TAKEN_MEMORY),
        });
        self.api.send("PUT", "/snapshot/create", Some(&request))?;
        // While the guest is paused. Firecracker has written what the guest's queues held.
        let mut sizes = Vec::new();
        for (name, kind) in devices(&self.vm.record.spec).filter(|(_, kind)| is_file(*kind)) {
            let copied = if kind == DriveKind::ReadOnly { Copied::Shared } else { Copied::Fresh };
            let wanted = Wanted::Staged(self.staged(name)?);
            let size = harvest((self.root, name), &wanted, copied, ((&drives).into(), name))?;
            sizes.push((name, size));
        }
        self.continue_guest()?;
        let mut files = Vec::new();
        let checksums = self.options.checksums;
        for (taken, name, sizes) in [
            (in_jail::TAKEN_MEMORY, MEMORY, self.memory.clone()),
            (in_jail::TAKEN_STATE, VMSTATE, 1..=MAX_STATE),
        ] {
            let wanted = Wanted::Written(sizes);
            let size = harvest((self.root, taken), &wanted, Copied::Fresh, (tree.top(), name))?;
            files.push(entry(tree.dir(), name, name.to_owned(), size, checksums)?);
        }
        self.clear_names()?;
        for (name, size) in sizes {
            files.push(entry(&drives, name, drive_path(name)?, size, checksums)?);
        }
        let spec = self.vm.record.spec.clone();
        let manifest = Manifest::new(self.options.kind, self.firecracker, spec, files)?;
        manifest.write(tree.top())?;
        Ok(manifest)
    }

    /// Returns the inode that was staged under this name.
    fn staged(&self, name: &str) -> Result<jail_fs::InodeId> {
        let mut receipts = self.vm.record.receipts.iter();
        let receipt = receipts.find(|receipt| receipt.name.as_str() == Some(name));
        receipt.map(|receipt| receipt.inode).ok_or_else(|| {
            Error::new(ErrorKind::Record, OPERATION)
                .because(format!("the record has no receipt of {name:?}"))
        })
    }

    /// Lets the guest run on, if the options ask for that. A guest that is to stay paused is resumed by a failure alone.
    fn continue_guest(&mut self) -> Result<()> {
        if self.options.afterwards == Afterwards::Resume && self.paused {
            self.api.resume()?;
            self.paused = false;
        }
        Ok(())
    }

    /// Ends the VM, if the options ask for that.
    fn finish(&self) -> Result<()> {
        if self.options.afterwards == Afterwards::Stop {
            self.vm.kill()?;
        }
        Ok(())
    }

    /// Removes what Firecracker wrote, and lets the guest run again.
    fn undo(&mut self) -> Result<()> {
        let cleared = self.clear_names();
        if !std::mem::take(&mut self.paused) {
            return cleared;
        }
        let Err(failure) = self.vm.resume() else { return cleared };
        let failure = Error::from(failure);
        // A VM that has ended cannot be resumed.
        match self.vm.ended_by(Deadline::now())? {
            Some(exit) => Err(Error::new(ErrorKind::EarlyDeath, "resume the guest")
                .because(format!("the VM has ended: {exit:?}"))),
            None => Err(failure.and_cleanup(cleared)),
        }
    }

    /// Removes the names that Firecracker writes to: it would write into a file that is there.
    fn clear_names(&self) -> Result<()> {
        let names = [in_jail::TAKEN_MEMORY, in_jail::TAKEN_STATE];
        let names = names.map(Name::try_from).into_iter().collect::<jail_fs::Result<Vec<_>>>()?;
        scrub(self.root, &names).map_err(|error| Error::files(OPERATION, error))?;
        Ok(())
    }
}

/// Returns the smallest and the largest size of the memory file, in bytes.
fn memory_size(vm: &Vm, api: &Api) -> Result<RangeInclusive<u64>> {
    #[derive(Deserialize)]
    struct Config {
        mem_size_mib: u64,
    }
    let bytes = |mib: u64| mib.saturating_mul(MIB);
    if let Some(boot) = &vm.record.spec.boot {
        return Ok(bytes(boot.memory_mib_at_start())..=bytes(boot.most_memory_mib()));
    }
    // Configured over the API: the VMM's own word, which a hostile one can use up its own disk space with.
    let config: Config = api.send("GET", "/machine-config", None)?.json()?;
    Ok(bytes(config.mem_size_mib)..=bytes(config.mem_size_mib))
}

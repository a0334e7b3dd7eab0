//! Carrying a plan out: staged aside, published by one rename.

use jail_cgroup::{Leaf, LeafPlan};
use jail_cmd::{Gid, JailId, Uid, in_jail};
use jail_fs::{
    Access, Artifact, CopyOptions, Dir, InodeId, Name, Owner, Receipt, StagedTree, StagingDir,
    TrustedDir,
};
use serde::Serialize;

use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::liveness::{self, Alive, Survey};
use crate::jail::record::{Origin, Progress, Record};
use crate::jail::{self, Jail, ROOT, leaf_mark};
use crate::jail::{ending, remove, shared_copy, uid_pool};
use crate::plan::{Plan, PlannedArtifact};
use crate::spec::drive::DriveKind;
use crate::sys::file::FileStat;
use crate::trace;
use crate::vmm;

/// Mode of `root/` until the jailer changes the owner.
const ROOT_MODE: u32 = 0o700;

/// A jail that is ready to be started, locked by this process.
///
/// # Caveats
/// Dropping it leaves the prepared jail on the host, for another launcher to take up or tear down.
#[derive(Debug)]
pub struct Prepared {
    pub(crate) plan: Plan,
    pub(crate) jail: Jail,
    pub(crate) base: TrustedDir,
    pub(crate) exec_dir: TrustedDir,
    pub(crate) record: Record,
    pub(crate) leaf: Option<Leaf>,
}

/// The report of a preparation: the strategy, the copied bytes and the inode of each artifact.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PrepareReport {
    /// One per artifact, in the plan's order.
    pub artifacts: Vec<Receipt>,
    /// The inode of the jail's root.
    pub root: InodeId,
    /// The uid the VM will have.
    pub uid: u32,
    /// The gid the VM will have.
    pub gid: u32,
}

impl Prepared {
    /// Returns the report of the preparation.
    #[must_use]
    pub fn report(&self) -> PrepareReport {
        PrepareReport {
            artifacts: self.record.receipts.clone(),
            root: self.record.root,
            uid: self.record.uid,
            gid: self.record.gid,
        }
    }

    /// The plan that was carried out.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub(crate) fn user(&self) -> Result<(Uid, Gid)> {
        Ok((Uid::new(self.record.uid)?, Gid::new(self.record.gid)?))
    }

    /// The jail's root, held; that it is the one which was staged is checked.
    pub(crate) fn root(&self) -> Result<Dir> {
        open_root(self.jail.dir(), self.record.root)
    }
}

/// The new owner of a jail's root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// Root, until the official jailer changes the owner.
    ToJailer,
    /// The uid at once, with `/dev/kvm` and `/dev/net/tun` in the jail, for callers without the official jailer.
    ToUser,
}

impl Plan {
    /// Carries the plan out: stages the jail aside, publishes it by one rename, makes the control group's leaf.
    ///
    /// Idempotent: a jail that was prepared by the same plan from unchanged sources and never started is left alone.
    /// The jail of a stopped VM is replaced as a whole, by fresh inodes. A long copy reports to `options`.
    ///
    /// # Errors
    /// [`Running`](ErrorKind::Running) where the VM of this id runs, [`Busy`](ErrorKind::Busy) where another
    /// launcher holds it, and whatever staging and control groups refuse. The host is left as it was.
    ///
    /// # Privileges
    /// Root, or `CAP_CHOWN`, `CAP_DAC_OVERRIDE`, `CAP_FOWNER` and `CAP_SYS_ADMIN`.
    pub fn prepare(&self, options: &CopyOptions) -> VmRuntimeResult<Prepared> {
        host_check::before(Verb::Prepare)?;
        Ok(self.prepare_checked(options)?)
    }

    /// Prepares on a host that was checked.
    pub(crate) fn prepare_checked(&self, options: &CopyOptions) -> Result<Prepared> {
        trace::verb("prepare", self.vm_id(), || {
            prepare(self, options, HandOver::ToJailer).map_err(vmm::explain_limits)
        })
    }
}

pub(crate) fn prepare(plan: &Plan, options: &CopyOptions, hand_over: HandOver) -> Result<Prepared> {
    // Before anything is touched, and held from here on: what is staged is what was looked at.
    let mut sources = plan.artifacts.iter().map(open_artifact).collect::<Result<Vec<_>>>()?;
    if plan.jailer.is_some() {
        let copied = |(artifact, source): (&PlannedArtifact, &Artifact)| match artifact.kind {
            DriveKind::ReadOnly | DriveKind::Private => source.stamp().size,
            _ => 0,
        };
        let largest = plan.artifacts.iter().zip(&sources).map(copied).max();
        vmm::check_limits(&plan.spec.resource_limits, largest.unwrap_or(0))?;
    }
    let base = TrustedDir::create(plan.layout.base().as_path())
        .map_err(|error| Error::files("open the chroot base", error))?;
    refuse_mount_flags(&base)?;
    sources = share_memory(plan, &base, sources, options)?;
    retire_elsewhere(&base, plan)?;
    let exec_name = Name::try_from(plan.layout.exec_name().as_str())?;
    let exec_dir = base
        .create_child(&exec_name)
        .map_err(|error| Error::files("make the exec file's directory", error))?;
    let mark = leaf_mark(base.id(), plan.layout.exec_name().as_str(), plan.jail_id.as_str());
    let leaf = plan.leaf.clone().map(|leaf| leaf.owned_by(&mark)).transpose()?;
    let work = Work { plan, leaf: leaf.as_ref(), sources: &sources, options, hand_over };
    match Jail::lock(&exec_dir, &plan.jail_id)? {
        None => stage_new(work, base, exec_dir),
        Some(old) => reuse_or_replace(work, base, exec_dir, old),
    }
}

/// The input of a staging.
#[derive(Clone, Copy)]
struct Work<'a> {
    plan: &'a Plan,
    /// The plan's leaf, with the jail's mark.
    leaf: Option<&'a LeafPlan>,
    sources: &'a [Artifact],
    options: &'a CopyOptions<'a>,
    hand_over: HandOver,
}

/// A base mounted `noexec` fails the exec; `nodev` lets the VM start and then denies `/dev/kvm`.
fn refuse_mount_flags(base: &TrustedDir) -> Result<()> {
    let flags = base.mount_flags()?;
    let bad = [(flags.noexec, "noexec"), (flags.nodev, "nodev"), (flags.read_only, "ro")];
    let Some((_, flag)) = bad.into_iter().find(|(set, _)| *set) else { return Ok(()) };
    Err(Error::new(ErrorKind::Unsupported, "use the chroot base")
        .path(base.path())
        .because(format!("it is mounted {flag}"))
        .hinted("Choose a base on a filesystem that is mounted rw, dev and exec."))
}

/// A VM that ran another exec file has a jail of the same id elsewhere: it must be stopped, and goes away.
fn retire_elsewhere(base: &TrustedDir, plan: &Plan) -> Result<()> {
    let mut found = jail::exec_dirs(base)?;
    for (exec_name, exec_dir) in std::mem::take(&mut found.dirs) {
        if exec_name == *plan.layout.exec_name() {
            continue;
        }
        let Some(old) = Jail::lock(&exec_dir, &plan.jail_id)? else { continue };
        let survey = Survey::default();
        stopped(base, &old, plan, &survey)?;
        remove::remove_jail(base, &exec_dir, exec_name.as_str(), old, &survey)?;
    }
    found.refuse_hidden(base, &plan.jail_id)
}

/// The record of a jail that nothing runs in.
fn stopped(base: &TrustedDir, old: &Jail, plan: &Plan, survey: &Survey) -> Result<Record> {
    let record = old.record()?;
    match liveness::alive(&record, old.dir(), survey)? {
        Alive::No => {}
        alive => return Err(liveness::still_running("prepare the jail", plan.vm_id(), &alive)),
    }
    ending::prove_ended(base, old.path(), &record)?;
    Ok(record)
}

fn stage_new(work: Work<'_>, base: TrustedDir, exec_dir: TrustedDir) -> Result<Prepared> {
    let plan = work.plan;
    let Staged { tree, record } = Staged::new(work, &base, &exec_dir, None)?;
    let dir = tree.id();
    let published = match tree.publish() {
        Ok(published) => published,
        Err(error) => {
            return Err(publish_failure(error).and_cleanup(give_back(&base, &record, dir, None)));
        }
    };
    let jail = Jail::published(published.lease);
    let made = make_leaf(work.leaf).and_then(|leaf| lend_drives(&jail, &record).map(|()| leaf));
    match made {
        Ok(leaf) => Ok(Prepared { plan: plan.clone(), jail, base, exec_dir, record, leaf }),
        Err(failure) => {
            let exec_name = plan.layout.exec_name().as_str();
            let survey = Survey::default();
            Err(failure
                .and_cleanup(remove::remove_jail(&base, &exec_dir, exec_name, jail, &survey)))
        }
    }
}

fn reuse_or_replace(
    work: Work<'_>,
    base: TrustedDir,
    exec_dir: TrustedDir,
    old: Jail,
) -> Result<Prepared> {
    let plan = work.plan;
    let survey = Survey::default();
    let before = stopped(&base, &old, plan, &survey)?;
    if is_still_right(work, &before)? && is_untouched(&old, &before) && !has_persistent_drives(plan)
    {
        let leaf = make_leaf(work.leaf)?;
        let (plan, record) = (plan.clone(), before);
        return Ok(Prepared { plan, jail: old, base, exec_dir, record, leaf });
    }
    remove::return_drives(old.dir(), &before)?;
    let Staged { tree, record } = Staged::new(work, &base, &exec_dir, Some((&old, &before)))?;
    let dir = tree.id();
    let undo =
        |failure: Error| failure.and_cleanup(give_back(&base, &record, dir, Some((&old, &before))));
    // The leaf first: once the old jail is gone there is no way back.
    let leaf = make_leaf(work.leaf).map_err(undo)?;
    // Nothing knows of the old one without its record.
    if before.leaf != record.leaf {
        liveness::leaves(&before, &survey).and_then(remove::remove_leaves).map_err(undo)?;
    }
    let published = tree.exchange(old.dir().id()).map_err(|error| undo(publish_failure(error)))?;
    // The old jail's files are still there, so its uid is not given back. The new jail is, for the next call to take
    // up.
    if let Some(Err(error)) = published.replaced {
        return Err(Error::files("remove the jail that was replaced", error));
    }
    if before.uid_leased && (before.uid != record.uid || !record.uid_leased) {
        uid_pool::give_back(&base, &before.jail_id, old.dir().id(), before.uid)?;
    }
    let jail = Jail::published(published.lease);
    // On a failure the new jail stays as well.
    lend_drives(&jail, &record)?;
    Ok(Prepared { plan: plan.clone(), jail, base, exec_dir, record, leaf })
}

/// Gives the persistent drives of a published jail to the VM's user.
///
/// A launcher that is killed before leaves the drives to their owner, and a launcher that is killed afterwards leaves a jail
/// whose record says what to give back.
fn lend_drives(jail: &Jail, record: &Record) -> Result<()> {
    let mut lent = record.receipts.iter().filter(|receipt| receipt.loan.is_some()).peekable();
    if lent.peek().is_none() {
        return Ok(());
    }
    let root = open_root(jail.dir(), record.root)?;
    lent.try_for_each(|receipt| jail_fs::lend_persistent(&root, receipt))
        .map_err(|error| Error::files("lend a persistent drive to the VM", error))
}

/// Gives back the uid of a jail that came to nothing; the one that it was to replace keeps its own.
fn give_back(
    base: &TrustedDir,
    record: &Record,
    dir: InodeId,
    before: Option<(&Jail, &Record)>,
) -> Result<()> {
    if !record.uid_leased {
        return Ok(());
    }
    give_back_uid(base, &record.jail_id, record.uid, dir, before)
}

fn give_back_uid(
    base: &TrustedDir,
    jail: &JailId,
    uid: u32,
    dir: InodeId,
    before: Option<(&Jail, &Record)>,
) -> Result<()> {
    match before {
        Some((old, before)) if before.uid_leased && before.uid == uid => {
            uid_pool::keep(base, jail, old.dir().id(), uid)
        }
        _ => uid_pool::give_back(base, jail, dir, uid).map(drop),
    }
}

fn publish_failure(error: jail_fs::Error) -> Error {
    if error.kind() == jail_fs::ErrorKind::AlreadyExists {
        return Error::new(ErrorKind::Busy, "publish the jail")
            .because("another launcher has just made a jail of this id")
            .source_of(error);
    }
    Error::files("publish the jail", error)
}

/// Returns true if this plan would make an equal jail: never started, same request, unchanged sources.
fn is_still_right(Work { plan, leaf, sources, .. }: Work<'_>, record: &Record) -> Result<bool> {
    Ok(record.progress == Progress::Prepared
        && record.is_of_pid_namespace(vmm::pid_namespace()?)
        && record.spec == plan.spec
        && record.leaf == leaf.map(LeafPlan::id)
        && record.receipts.len() == sources.len()
        && record
            .receipts
            .iter()
            .zip(sources)
            .all(|(receipt, source)| receipt.source.same_content(&source.stamp())))
}

/// Returns true if only root has owned the jail's root. A jailer gives the root to the VM's uid, and a process with
/// that uid may have planted any file.
fn is_untouched(old: &Jail, record: &Record) -> bool {
    let owner = open_root(old.dir(), record.root)
        .ok()
        .and_then(|root| FileStat::of(&root).ok())
        .map(|stat| stat.uid());
    owner == Some(Owner::caller().uid())
}

/// Returns true if the plan has persistent drives. Only staging links a persistent drive into the jail.
fn has_persistent_drives(plan: &Plan) -> bool {
    plan.artifacts.iter().any(|artifact| artifact.kind == DriveKind::Persistent)
}

pub(crate) fn open_root(jail: &TrustedDir, expected: InodeId) -> Result<Dir> {
    let operation = "open the jail's root";
    let path = jail.path().join(ROOT);
    let root =
        jail_fs::open_dir(jail.dir(), ROOT).map_err(|error| Error::files(operation, error))?;
    let found = InodeId::of(&root).map_err(|error| Error::files(operation, error))?;
    if found != expected {
        return Err(Error::new(ErrorKind::Record, operation)
            .path(path)
            .because(format!("its inode is {found}, {expected} was staged"))
            .hinted("Remove the jail."));
    }
    Ok(root)
}

fn make_leaf(leaf: Option<&LeafPlan>) -> Result<Option<Leaf>> {
    let Some(leaf) = leaf else { return Ok(None) };
    leaf.create().map(Some).map_err(|error| Error::cgroup("make the VM's control group", error))
}

/// A jail staged aside, not published yet.
struct Staged {
    tree: StagedTree,
    record: Record,
}

impl Staged {
    /// Stages the jail, in the place of the one `before`.
    fn new(
        work: Work<'_>,
        base: &TrustedDir,
        exec_dir: &TrustedDir,
        before: Option<(&Jail, &Record)>,
    ) -> Result<Self> {
        let plan = work.plan;
        let name = Name::try_from(plan.jail_id.as_str())?;
        let tree = StagedTree::create(exec_dir, &name)
            .map_err(|error| Error::files("stage the jail", error))?;
        let dir = tree.id();
        // After the tree, because the tree shows a sweep that the lease has a living launcher.
        let (uid, gid, leased) = uid_pool::take(base, plan, dir)?;
        match Self::fill(work, tree, (uid, gid, leased)) {
            Err(failure) if leased => {
                Err(failure.and_cleanup(give_back_uid(base, &plan.jail_id, uid.get(), dir, before)))
            }
            staged => staged,
        }
    }

    fn fill(
        work: Work<'_>,
        tree: StagedTree,
        (uid, gid, leased): (Uid, Gid, bool),
    ) -> Result<Self> {
        let Work { plan, sources, options, hand_over, .. } = work;
        let owner = Owner::new(uid.get(), gid.get())?;
        let root_owner = match hand_over {
            HandOver::ToJailer => Owner::ROOT,
            HandOver::ToUser => owner,
        };
        let root = tree
            .make_dir(ROOT, root_owner, ROOT_MODE)
            .map_err(|error| Error::files("make the jail's root", error))?;
        let mut receipts = Vec::new();
        for (artifact, source) in plan.artifacts.iter().zip(sources) {
            receipts.push(stage(artifact, source, (&root, (&root).into()), owner, options)?);
        }
        for file in &plan.files {
            let (owner, mode) =
                if file.writable { (owner, 0o600) } else { (Owner::new(0, gid.get())?, 0o440) };
            jail_fs::write(
                &root,
                &Name::try_from(file.name.as_str())?,
                file.content.as_bytes(),
                owner,
                mode,
            )
            .map_err(|error| Error::files(format!("write /{}", file.name), error))?;
        }
        if plan.jailer.is_some() {
            vmm::stage_streams(&tree, &root, owner)?;
        }
        if hand_over == HandOver::ToUser {
            precreate(&tree, owner)?;
        }
        let user = (uid.get(), gid.get(), leased);
        let leaf = work.leaf.map(LeafPlan::id);
        let record = Record::new(plan, leaf, user, (Origin::here(tree.id())?, root.id()), receipts);
        record.write(&tree)?;
        Ok(Self { tree, record })
    }
}

pub(crate) fn open_artifact(artifact: &PlannedArtifact) -> Result<Artifact> {
    let opened = match artifact.kind {
        DriveKind::VhostUser => Artifact::open_socket(&artifact.source),
        _ => Artifact::open(&artifact.source),
    };
    opened.map_err(|error| Error::files(format!("stage {}", artifact.name), error))
}

/// Puts the base's copy of a snapshot's memory in the place of the memory, if jails below `base` cannot link the memory.
fn share_memory(
    plan: &Plan,
    base: &TrustedDir,
    sources: Vec<Artifact>,
    options: &CopyOptions,
) -> Result<Vec<Artifact>> {
    let share = |(artifact, source): (&PlannedArtifact, Artifact)| match artifact.name.as_str()
        == in_jail::SNAPSHOT_MEMORY
    {
        true => shared_copy::on_base(base, source, options),
        false => Ok(source),
    };
    plan.artifacts.iter().zip(sources).map(share).collect()
}

/// Stages a source in the directory `root`, also as a place to stage into.
pub(crate) fn stage(
    artifact: &PlannedArtifact,
    source: &Artifact,
    (root, place): (&Dir, StagingDir<'_>),
    owner: Owner,
    options: &CopyOptions,
) -> Result<Receipt> {
    let name = Name::try_from(artifact.name.as_str())?;
    let staged = match artifact.kind {
        DriveKind::ReadOnly => jail_fs::read_only(source, place, &name, owner, options),
        DriveKind::Private => jail_fs::private(source, place, &name, owner, options),
        // Lent once the jail is published, and its record with it: whoever removes the jail then returns the drive.
        DriveKind::Persistent => {
            jail_fs::link_persistent(source, root, &name, Some(owner), options)
        }
        DriveKind::BlockDevice => {
            jail_fs::block_device(source, root, &name, owner, Access::ReadWrite)
        }
        DriveKind::SharedBlockDevice => {
            jail_fs::block_device(source, root, &name, owner, Access::ReadOnly)
        }
        DriveKind::VhostUser => jail_fs::socket(source, place, &name, owner),
    };
    staged.map_err(|error| Error::files(format!("stage {}", artifact.name), error))
}

/// `/dev/kvm` and `/dev/net/tun`, for the uid.
fn precreate(tree: &StagedTree, owner: Owner) -> Result<()> {
    let failed = |error| Error::files("make the device nodes", error);
    let dev = tree.make_dir("root/dev", owner, ROOT_MODE).map_err(failed)?;
    let net = tree.make_dir("root/dev/net", owner, ROOT_MODE).map_err(failed)?;
    jail_fs::ensure_char_device(&dev, &Name::try_from("kvm")?, 10, 232, owner, 0o600)
        .map_err(failed)?;
    jail_fs::ensure_char_device(&net, &Name::try_from("tun")?, 10, 200, owner, 0o600)
        .map_err(failed)?;
    Ok(())
}

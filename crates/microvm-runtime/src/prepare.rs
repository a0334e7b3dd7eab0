//! Carrying a plan out: staged aside, published by one rename.

use jail_cgroup::Leaf;
use jail_cmd::{Gid, JailId, Uid};
use jail_fs::{
    Access, Artifact, CopyOptions, Dir, InodeId, Name, Owner, Receipt, StagedDir, StagedTree,
    Strategy, TrustedDir,
};
use serde::Serialize;

use crate::drive::DriveKind;
use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};
use crate::jail::{self, Alive, Jail, ROOT};
use crate::plan::{Plan, PlannedArtifact};
use crate::process;
use crate::record::{Progress, Record};
use crate::{teardown, trace, uid};

/// Mode of `root/` until the jailer takes it over.
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
    pub(crate) record: Record,
    pub(crate) leaf: Option<Leaf>,
}

/// What preparing did: per artifact the strategy used, the bytes copied and the inode.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct PrepareReceipt {
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
    /// What preparing did.
    #[must_use]
    pub fn receipt(&self) -> PrepareReceipt {
        PrepareReceipt {
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
        open_root(&self.jail, self.record.root)
    }
}

/// How a jail's root is handed over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HandOver {
    /// Root's own until the official jailer takes it over.
    ToJailer,
    /// The uid's at once, with `/dev/kvm` and `/dev/net/tun` in it: for callers without the official jailer.
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
    /// Root, or `CAP_CHOWN`, `CAP_FOWNER`, `CAP_DAC_READ_SEARCH`, `CAP_MKNOD` and write access to the control groups.
    pub fn prepare(&self, options: &CopyOptions) -> VmRuntimeResult<Prepared> {
        Ok(trace::verb("prepare", self.vm_id(), || {
            prepare(self, options, HandOver::ToJailer).map_err(process::explain_limits)
        })?)
    }
}

pub(crate) fn prepare(plan: &Plan, options: &CopyOptions, hand_over: HandOver) -> Result<Prepared> {
    // Before anything is touched, and held from here on: what is staged is what was looked at.
    let sources = plan.artifacts.iter().map(open_artifact).collect::<Result<Vec<_>>>()?;
    if plan.jailer.is_some() {
        let copied = |(artifact, source): (&PlannedArtifact, &Artifact)| match artifact.kind {
            DriveKind::ReadOnly | DriveKind::Private => source.stamp().size,
            _ => 0,
        };
        let largest = plan.artifacts.iter().zip(&sources).map(copied).max();
        process::check_limits(&plan.spec.resource_limits, largest.unwrap_or(0))?;
    }
    let base = TrustedDir::create(plan.layout.base().as_path())
        .map_err(|error| Failure::files("open the chroot base", error))?;
    refuse_mount_flags(&base)?;
    retire_elsewhere(&base, plan)?;
    let work = Work { plan, sources: &sources, options, hand_over };
    let exec_name = Name::try_from(plan.layout.exec_name().as_str())?;
    loop {
        let exec_dir = base
            .create_child(&exec_name)
            .map_err(|error| Failure::files("make the exec file's directory", error))?;
        let found = Jail::lock(&exec_dir, &plan.jail_id);
        let prepared = found.and_then(|found| match found {
            None => fresh(work, base.clone(), &exec_dir),
            Some(old) => again(work, base.clone(), old),
        });
        match prepared {
            // A teardown takes the directory away with the last jail in it; then it is made again.
            Err(failure)
                if failure.kind() == ErrorKind::NotFound
                    && !is_there(&base, &exec_name, &exec_dir) => {}
            Err(failure) => {
                // Made for this jail, perhaps.
                teardown::remove_if_empty(&base, &exec_dir);
                return Err(failure);
            }
            Ok(prepared) => return Ok(prepared),
        }
    }
}

/// Whether the name still leads to this directory.
fn is_there(base: &TrustedDir, name: &Name, dir: &TrustedDir) -> bool {
    base.child(name).is_ok_and(|now| now.id() == dir.id())
}

/// What is to be staged, and how.
#[derive(Clone, Copy)]
struct Work<'a> {
    plan: &'a Plan,
    sources: &'a [Artifact],
    options: &'a CopyOptions<'a>,
    hand_over: HandOver,
}

/// A base mounted `noexec` fails the exec; `nodev` lets the VM start and then denies `/dev/kvm`.
fn refuse_mount_flags(base: &TrustedDir) -> Result<()> {
    let flags = base.mount_flags()?;
    let bad = [(flags.noexec, "noexec"), (flags.nodev, "nodev"), (flags.read_only, "ro")];
    let Some((_, flag)) = bad.into_iter().find(|(set, _)| *set) else { return Ok(()) };
    Err(Failure::new(ErrorKind::Unsupported, "use the chroot base")
        .path(base.path())
        .because(format!("it is mounted {flag}"))
        .hinted("choose a base on a filesystem mounted rw, dev and exec"))
}

/// A VM that ran another exec file has a jail of the same id elsewhere: it must be stopped, and goes away.
fn retire_elsewhere(base: &TrustedDir, plan: &Plan) -> Result<()> {
    for (exec_name, exec_dir) in jail::exec_dirs(base)? {
        if exec_name == *plan.layout.exec_name() {
            continue;
        }
        let Some(old) = Jail::lock(&exec_dir, &plan.jail_id)? else { continue };
        refuse_if_alive(&old, plan)?;
        teardown::remove(base, old)?;
    }
    Ok(())
}

fn refuse_if_alive(old: &Jail, plan: &Plan) -> Result<Option<Record>> {
    let Some(record) = old.record()? else { return Ok(None) };
    match jail::alive(&record, old.path())? {
        Alive::No => Ok(Some(record)),
        alive => Err(jail::still_running("prepare the jail", plan.vm_id(), &alive)),
    }
}

fn fresh(work: Work<'_>, base: TrustedDir, exec_dir: &TrustedDir) -> Result<Prepared> {
    let plan = work.plan;
    let staged = Staged::new(work, &base, exec_dir)?;
    let give_back_uid = |record: &Record| match record.uid_leased {
        true => uid::give_back(&base, &record.jail_id, record.uid),
        false => Ok(()),
    };
    let Staged { tree, record } = staged;
    let published = match tree.publish() {
        Ok(published) => published,
        Err(error) => {
            give_back_uid(&record)?;
            return Err(publish_failure(error));
        }
    };
    let jail = Jail { exec_dir: exec_dir.clone(), dir: published.dir, _lock: published.lease };
    let leaf = match make_leaf(plan) {
        Ok(leaf) => leaf,
        Err(failure) => {
            teardown::remove(&base, jail)?;
            return Err(failure);
        }
    };
    Ok(Prepared { plan: plan.clone(), jail, base, record, leaf })
}

fn again(work: Work<'_>, base: TrustedDir, old: Jail) -> Result<Prepared> {
    let plan = work.plan;
    let before = refuse_if_alive(&old, plan)?;
    if let Some(record) = &before
        && is_still_right(work, record)
        && is_untouched(&old, record)
        && !has_persistent_drives(plan)
    {
        let leaf = make_leaf(plan)?;
        let record = record.clone();
        return Ok(Prepared { plan: plan.clone(), jail: old, base, record, leaf });
    }
    release_persistent(&old, before.as_ref())?;
    let staged = Staged::new(work, &base, &old.exec_dir)?;
    let Staged { tree, record } = staged;
    // The leaf first: once the old jail is gone there is no way back.
    let leaf = make_leaf(plan)?;
    // Nothing knows of the old one without its record.
    if let Some(before) = before.as_ref().filter(|before| before.leaf != record.leaf) {
        teardown::remove_leaf(before)?;
    }
    let published = tree.exchange(old.dir.id()).map_err(publish_failure)?;
    // The old jail's files are still there, so its uid is not given back. The new jail is, for the next call to take up.
    if let Some(Err(error)) = published.replaced {
        return Err(Failure::files("remove the jail that was replaced", error));
    }
    if let Some(before) = before.filter(|before| before.uid_leased && before.uid != record.uid) {
        uid::give_back(&base, &before.jail_id, before.uid)?;
    }
    let jail = Jail { exec_dir: old.exec_dir.clone(), dir: published.dir, _lock: published.lease };
    Ok(Prepared { plan: plan.clone(), jail, base, record, leaf })
}

fn publish_failure(error: jail_fs::Error) -> Failure {
    Failure::files("publish the jail", error)
}

/// Whether a prepared jail is what this plan would make again: never started, same request, unchanged sources.
fn is_still_right(Work { plan, sources, .. }: Work<'_>, record: &Record) -> bool {
    record.progress == Progress::Prepared
        && record.spec == plan.spec
        && record.leaf == plan.leaf.as_ref().map(jail_cgroup::LeafPlan::id)
        && record.receipts.len() == sources.len()
        && record
            .receipts
            .iter()
            .zip(sources)
            .all(|(receipt, source)| receipt.source.same_content(&source.stamp()))
}

/// Whether nobody but us had the jail's root: a jailer, whoever started it, gives it to the VM's uid, who may have
/// planted anything.
fn is_untouched(old: &Jail, record: &Record) -> bool {
    let owner = open_root(old, record.root)
        .ok()
        .and_then(|root| rustix::fs::fstat(&root).ok())
        .map(|stat| stat.st_uid);
    owner == Some(Owner::caller().uid())
}

/// Whether the plan has persistent drives: their second name is to be the jail's, which only staging sees to.
fn has_persistent_drives(plan: &Plan) -> bool {
    plan.artifacts.iter().any(|artifact| artifact.kind == DriveKind::Persistent)
}

/// Takes the names of persistent drives out of a stopped jail: the drive may be lent to one jail at a time.
fn release_persistent(old: &Jail, record: Option<&Record>) -> Result<()> {
    let Some(record) = record else { return Ok(()) };
    let names = record
        .receipts
        .iter()
        .filter(|receipt| receipt.strategy == Strategy::PersistentLink)
        .map(|receipt| receipt.name.clone())
        .collect::<Vec<_>>();
    if names.is_empty() {
        return Ok(());
    }
    let root = open_root(old, record.root)?;
    jail_fs::scrub(&root, &names)
        .map_err(|error| Failure::files("take back the persistent drives", error))?;
    Ok(())
}

pub(crate) fn open_root(jail: &Jail, expected: InodeId) -> Result<Dir> {
    let operation = "open the jail's root";
    let path = jail.path().join(ROOT);
    let root = jail_fs::open_dir(jail.dir.dir(), &Name::try_from(ROOT)?)
        .map_err(|error| Failure::files(operation, error))?;
    let found = InodeId::of(&root).map_err(|error| Failure::files(operation, error))?;
    if found != expected {
        return Err(Failure::new(ErrorKind::Record, operation)
            .path(path)
            .because(format!("its inode is {found}, {expected} was staged"))
            .hinted("tear the jail down"));
    }
    Ok(root)
}

fn make_leaf(plan: &Plan) -> Result<Option<Leaf>> {
    let Some(leaf) = &plan.leaf else { return Ok(None) };
    leaf.create().map(Some).map_err(|error| Failure::cgroup("make the VM's control group", error))
}

/// A jail staged aside, not published yet.
struct Staged {
    tree: StagedTree,
    record: Record,
}

impl Staged {
    fn new(work: Work<'_>, base: &TrustedDir, exec_dir: &TrustedDir) -> Result<Self> {
        let plan = work.plan;
        let name = Name::try_from(plan.jail_id.as_str())?;
        let tree = StagedTree::create(exec_dir, &name)
            .map_err(|error| Failure::files("stage the jail", error))?;
        // After the tree, which tells a sweep that this lease is not a dead launcher's.
        let (uid, gid, leased) = uid::take(base, plan)?;
        match Self::fill(work, tree, (uid, gid, leased)) {
            Err(failure) if leased => {
                uid::give_back(base, &plan.jail_id, uid.get())?;
                Err(failure)
            }
            staged => staged,
        }
    }

    fn fill(
        work: Work<'_>,
        tree: StagedTree,
        (uid, gid, leased): (Uid, Gid, bool),
    ) -> Result<Self> {
        let Work { plan, sources, options, hand_over } = work;
        let owner = Owner::new(uid.get(), gid.get())?;
        let root_owner = match hand_over {
            HandOver::ToJailer => Owner::ROOT,
            HandOver::ToUser => owner,
        };
        let root = tree
            .make_dir(ROOT, root_owner, ROOT_MODE)
            .map_err(|error| Failure::files("make the jail's root", error))?;
        let mut receipts = Vec::new();
        for (artifact, source) in plan.artifacts.iter().zip(sources) {
            receipts.push(stage(artifact, source, &root, owner, options)?);
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
            .map_err(|error| Failure::files(format!("write /{}", file.name), error))?;
        }
        if plan.jailer.is_some() {
            process::stage_streams(&tree, &root, owner)?;
        }
        if hand_over == HandOver::ToUser {
            precreate(&tree, owner)?;
        }
        let record = Record::new(plan, (uid.get(), gid.get()), leased, root.id(), receipts);
        record.write(&tree)?;
        Ok(Self { tree, record })
    }
}

fn open_artifact(artifact: &PlannedArtifact) -> Result<Artifact> {
    Artifact::open(&artifact.source)
        .map_err(|error| Failure::files(format!("stage {}", artifact.name), error))
}

fn stage(
    artifact: &PlannedArtifact,
    source: &Artifact,
    root: &StagedDir<'_>,
    owner: Owner,
    options: &CopyOptions,
) -> Result<Receipt> {
    let name = Name::try_from(artifact.name.as_str())?;
    let staged = match artifact.kind {
        DriveKind::ReadOnly => jail_fs::read_only(source, root, &name, owner, options),
        DriveKind::Private => jail_fs::private(source, root, &name, owner, options),
        DriveKind::Persistent => jail_fs::persistent(source, root, &name, Some(owner), options),
        DriveKind::BlockDevice => {
            jail_fs::block_device(source, root, &name, owner, Access::ReadWrite)
        }
        DriveKind::SharedBlockDevice => {
            jail_fs::block_device(source, root, &name, owner, Access::ReadOnly)
        }
    };
    staged.map_err(|error| Failure::files(format!("stage {}", artifact.name), error))
}

/// `/dev/kvm` and `/dev/net/tun`, for the uid.
fn precreate(tree: &StagedTree, owner: Owner) -> Result<()> {
    let failed = |error| Failure::files("make the device nodes", error);
    let dev = tree.make_dir("root/dev", owner, ROOT_MODE).map_err(failed)?;
    let net = tree.make_dir("root/dev/net", owner, ROOT_MODE).map_err(failed)?;
    jail_fs::ensure_char_device(&dev, &Name::try_from("kvm")?, 10, 232, owner, 0o600)
        .map_err(failed)?;
    jail_fs::ensure_char_device(&net, &Name::try_from("tun")?, 10, 200, owner, 0o600)
        .map_err(failed)?;
    Ok(())
}

impl Jail {
    pub(crate) fn id(&self) -> Result<JailId> {
        let name = self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(name.parse()?)
    }
}

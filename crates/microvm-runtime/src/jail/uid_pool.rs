//! Uids leased to one VM each: `<base>/.uids/<uid>` names the jail that has it, and that jail's directory.
//!
//! The lock of `.uids` is held while leases are taken and released, and nothing else is done meanwhile. A jail of the
//! same id that is made anew has another directory, so the end of the old one gives back nothing of the new one's.

use std::collections::HashSet;
use std::time::Duration;

use jail_cmd::{Gid, JailId, Uid};
use jail_fs::{InodeId, Lease, Name, Owner, TrustedDir};

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::plan::Plan;
use crate::spec::User;
use crate::vmm;

/// The directory of leases in the chroot base: made once, never removed.
const DIR: &str = ".uids";

/// Largest lease that is read, in bytes.
const MAX_BYTES: u64 = 256;

/// The longest wait for the lock of the leases.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);

/// The pause between two attempts to lock the leases.
const LOCK_INTERVAL: Duration = Duration::from_millis(1);

/// The longest wait for exited processes to be reaped, before a range counts as full.
const REAP_TIMEOUT: Duration = Duration::from_secs(1);

/// The pause between two searches for a free uid.
const SEARCH_INTERVAL: Duration = Duration::from_millis(5);

/// Returns the user of the VM whose jail is under construction in the directory `dir`: the user of the plan, or a uid
/// of the plan's range that no other VM and no process of this host has.
pub(crate) fn take(base: &TrustedDir, plan: &Plan, dir: InodeId) -> Result<(Uid, Gid, bool)> {
    match plan.user {
        User::Leased { first, last } => {
            let uid = lease(base, plan, dir, first, last)?;
            Ok((Uid::new(uid)?, Gid::new(uid)?, true))
        }
        _ => {
            let (uid, gid) = plan.some_user()?;
            refuse_leased(base, &plan.jail_id, uid.get())?;
            Ok((uid, gid, false))
        }
    }
}

/// A fixed uid must not be one that another jail leases.
fn refuse_leased(base: &TrustedDir, jail: &JailId, uid: u32) -> Result<()> {
    let Some(dir) = open(base)? else { return Ok(()) };
    match holder(&dir, &Name::try_from(uid.to_string())?)? {
        Some(holder) if !holder.is(jail) => {
            Err(Error::new(ErrorKind::Busy, format!("take the uid {uid}"))
                .path(dir.path())
                .because(format!("it is leased to the jail {:?}", holder.jail))
                .hinted("Choose a uid outside the ranges that are leased from."))
        }
        _ => Ok(()),
    }
}

fn lease(base: &TrustedDir, plan: &Plan, dir: InodeId, first: u32, last: u32) -> Result<u32> {
    let deadline = Deadline::after(REAP_TIMEOUT);
    loop {
        match try_lease(base, plan, dir, first, last)? {
            Found::Uid(uid) => return Ok(uid),
            // An exited process keeps its uid until the parent reaps the process.
            Found::InUse if !deadline.has_passed() => std::thread::sleep(SEARCH_INTERVAL),
            Found::InUse | Found::None => {
                return Err(Error::new(ErrorKind::Busy, "lease a uid")
                    .path(base.path().join(DIR))
                    .because(format!("all of {first}..={last} are taken"))
                    .hinted("Remove a VM, or widen the range."));
            }
        }
    }
}

/// The result of one search for a free uid.
enum Found {
    Uid(u32),
    /// No lease is free, and a process has a uid of the range that no other jail has leased.
    InUse,
    None,
}

fn try_lease(base: &TrustedDir, plan: &Plan, dir: InodeId, first: u32, last: u32) -> Result<Found> {
    let jail = &plan.jail_id;
    let lock = lock(base)?;
    let leases = lock.dir();
    let span = u64::from(last - first) + 1;
    // Where to begin looking is spread by the id, so that a full range is not walked for each VM.
    let start = jail
        .as_str()
        .bytes()
        .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        % span;
    let mut in_use = Vec::new();
    for step in 0..span {
        let offset = u32::try_from((start + step) % span).unwrap_or_default();
        let uid = first + offset;
        if uid == plan.configured_uid {
            continue;
        }
        let name = Name::try_from(uid.to_string())?;
        // Another base's VM, a fixed user's, or what outlived a VM.
        if vmm::uid_is_in_use(uid)? {
            in_use.push(name);
            continue;
        }
        match write(leases, &name, jail, dir) {
            Ok(()) => return Ok(Found::Uid(uid)),
            Err(error) if error.kind() == jail_fs::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(Error::files("lease a uid", error)),
        }
        // A restart keeps its uid, and so does one whose launcher was killed after it took the lease. A lease that
        // cannot be read is somebody's.
        if holder(leases, &name).is_ok_and(|holder| holder.is_some_and(|holder| holder.is(jail))) {
            hand_over(leases, &name, jail, dir)?;
            return Ok(Found::Uid(uid));
        }
    }
    let may_be_free = |name: &Name| {
        holder(leases, name).is_ok_and(|holder| holder.is_none_or(|holder| holder.is(jail)))
    };
    Ok(if in_use.iter().any(may_be_free) { Found::InUse } else { Found::None })
}

/// Releases the uid of the jail in the directory `dir`, and returns the uid.
pub(crate) fn give_back(
    base: &TrustedDir,
    jail: &JailId,
    dir: InodeId,
    uid: u32,
) -> Result<Option<u32>> {
    if open(base)?.is_none() {
        return Ok(None);
    }
    let lock = lock(base)?;
    let name = Name::try_from(uid.to_string())?;
    let held = holder(lock.dir(), &name)?.is_some_and(|holder| holder.is_in(jail, dir));
    if held {
        remove(lock.dir(), name)?;
    }
    Ok(held.then_some(uid))
}

/// Gives back whatever uid the jail in the directory `dir` has; the uid then.
pub(crate) fn give_back_all(base: &TrustedDir, jail: &JailId, dir: InodeId) -> Result<Option<u32>> {
    let mut given = None;
    for uid in all(base)?.leases_of(jail.as_str()) {
        given = give_back(base, jail, dir, uid)?.or(given);
    }
    Ok(given)
}

/// Assigns the uid to the jail in the directory `dir` again, after a failed attempt to replace the jail.
pub(crate) fn keep(base: &TrustedDir, jail: &JailId, dir: InodeId, uid: u32) -> Result<()> {
    let lock = lock(base)?;
    let name = Name::try_from(uid.to_string())?;
    match holder(lock.dir(), &name)? {
        Some(holder) if !holder.is(jail) => Ok(()),
        _ => hand_over(lock.dir(), &name, jail, dir),
    }
}

/// Releases the leases of jails that there are none of: `jails` gives the ids of all, while nobody else can take or
/// release a lease, or `None` if that is unknown.
pub(crate) fn release(
    base: &TrustedDir,
    jails: impl FnOnce() -> Result<Option<HashSet<String>>>,
) -> Result<Vec<u32>> {
    if open(base)?.is_none() {
        return Ok(Vec::new());
    }
    let lock = lock(base)?;
    let leases = read_all(lock.dir())?;
    // After the leases: each of them had its jail, or the staging of it, by now.
    let Some(jails) = jails()? else { return Ok(Vec::new()) };
    let mut released = Vec::new();
    for (uid, holder) in leases.0 {
        if holder.jail.parse::<JailId>().is_ok() && !jails.contains(&holder.jail) {
            remove(lock.dir(), Name::try_from(uid.to_string())?)?;
            released.push(uid);
        }
    }
    Ok(released)
}

/// Every uid that is leased.
#[derive(Debug, Default)]
pub(crate) struct Leases(Vec<(u32, Holder)>);

impl Leases {
    pub(crate) fn leases_of(&self, jail: &str) -> Vec<u32> {
        self.0.iter().filter(|(_, holder)| holder.jail == jail).map(|(uid, _)| *uid).collect()
    }
}

pub(crate) fn all(base: &TrustedDir) -> Result<Leases> {
    open(base)?.map_or_else(|| Ok(Leases::default()), |dir| read_all(&dir))
}

fn read_all(dir: &TrustedDir) -> Result<Leases> {
    let mut leases = Leases::default();
    for name in dir.entries().map_err(|error| Error::files("list the leased uids", error))? {
        let Some(uid) = name.as_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(holder) = holder(dir, &name)? {
            leases.0.push((uid, holder));
        }
    }
    Ok(leases)
}

/// The holder of a uid.
#[derive(Debug)]
pub(super) struct Holder {
    pub(super) jail: String,
    /// The jail's directory.
    dir: Option<String>,
}

impl Holder {
    /// Parses a lease. One that nobody of this crate wrote belongs to no jail.
    pub(super) fn parse(bytes: &[u8]) -> Self {
        let text = String::from_utf8_lossy(bytes);
        let mut lines = text.lines().map(str::to_owned);
        Self { jail: lines.next().unwrap_or_default(), dir: lines.next() }
    }

    fn is(&self, jail: &JailId) -> bool {
        self.jail == jail.as_str()
    }

    fn is_in(&self, jail: &JailId, dir: InodeId) -> bool {
        // Without the device number, which may be another after a reboot: leases and jails are on one filesystem.
        let number = |id: &str| id.rsplit(':').next().map(str::to_owned);
        self.is(jail)
            && self.dir.as_ref().is_none_or(|held| number(held) == number(&dir.to_string()))
    }
}

fn holder(dir: &TrustedDir, name: &Name) -> Result<Option<Holder>> {
    let bytes = match jail_fs::read_small(dir.dir(), name, MAX_BYTES) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::files("read who has a uid", error)),
    };
    Ok(Some(Holder::parse(&bytes)))
}

fn write(dir: &TrustedDir, name: &Name, jail: &JailId, of: InodeId) -> jail_fs::Result<()> {
    let text = format!("{jail}\n{of}\n");
    jail_fs::write(dir.dir(), name, text.as_bytes(), Owner::caller(), 0o600).map(drop)
}

fn hand_over(dir: &TrustedDir, name: &Name, jail: &JailId, to: InodeId) -> Result<()> {
    remove(dir, name.clone())?;
    write(dir, name, jail, to).map_err(|error| Error::files("lease a uid", error))
}

fn remove(dir: &TrustedDir, name: Name) -> Result<()> {
    jail_fs::scrub(dir.dir(), &[name])
        .map(drop)
        .map_err(|error| Error::files("give back a uid", error))
}

/// The directory of leases; `None` where there is none yet.
fn open(base: &TrustedDir) -> Result<Option<TrustedDir>> {
    match base.child(&Name::try_from(DIR)?) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::files("read the leased uids", error)),
    }
}

/// Locks the directory of leases, and makes a missing directory.
fn lock(base: &TrustedDir) -> Result<Lease> {
    let failed = |error| Error::files("lock the leased uids", error);
    let dir = base.create_child(&Name::try_from(DIR)?).map_err(failed)?;
    let deadline = Deadline::after(LOCK_TIMEOUT);
    loop {
        match Lease::try_acquire(&dir) {
            Err(error) if error.kind() == jail_fs::ErrorKind::Busy && !deadline.has_passed() => {
                std::thread::sleep(LOCK_INTERVAL);
            }
            answer => return answer.map_err(failed),
        }
    }
}

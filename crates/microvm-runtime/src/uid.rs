//! Uids leased to one VM each: `<base>/.uids/<uid>` names the jail that has it.

use std::path::Path;

use jail_cmd::{Gid, JailId, Uid};
use jail_fs::{Name, Owner, TrustedDir};

use crate::error::{ErrorKind, Failure, Result};
use crate::plan::Plan;
use crate::spec::User;
use crate::teardown;

/// The directory of leases in the chroot base.
const DIR: &str = ".uids";

/// Largest lease that is read, in bytes.
const MAX_BYTES: u64 = 256;

/// The user of the VM: the plan's, or one from its range that no other VM has.
pub(crate) fn take(base: &TrustedDir, plan: &Plan) -> Result<(Uid, Gid, bool)> {
    match plan.user {
        User::Leased { first, last } => {
            let uid = lease(base, &plan.jail_id, first, last)?;
            Ok((Uid::new(uid)?, Gid::new(uid)?, true))
        }
        _ => plan.some_user().map(|(uid, gid)| (uid, gid, false)),
    }
}

fn lease(base: &TrustedDir, jail: &JailId, first: u32, last: u32) -> Result<u32> {
    let failed = |error| Failure::files("lease a uid", error);
    let dir_name = Name::try_from(DIR)?;
    let mut dir = base.create_child(&dir_name).map_err(failed)?;
    let span = u64::from(last - first) + 1;
    // Where to begin looking is spread by the id, so that a full range is not walked for each VM.
    let start = jail
        .as_str()
        .bytes()
        .fold(0u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(byte.into()))
        % span;
    let (mut step, mut retries) = (0, 64);
    while step < span {
        let offset = u32::try_from((start + step) % span).unwrap_or_default();
        let uid = first + offset;
        let name = Name::try_from(uid.to_string())?;
        match jail_fs::write(dir.dir(), &name, jail.as_str().as_bytes(), Owner::ROOT, 0o600) {
            Ok(_) => return Ok(uid),
            Err(error) if error.kind() == jail_fs::ErrorKind::AlreadyExists => {
                // A launcher killed after it took the lease takes it up again.
                if holder(&dir, &name)?.as_deref() == Some(jail.as_str()) {
                    return Ok(uid);
                }
            }
            // The last lease was given back, and the directory went with it.
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound && retries > 0 => {
                retries -= 1;
                dir = base.create_child(&dir_name).map_err(failed)?;
                continue;
            }
            Err(error) => {
                teardown::remove_if_empty(base, &dir);
                return Err(failed(error));
            }
        }
        step += 1;
    }
    Err(Failure::new(ErrorKind::Busy, "lease a uid")
        .path(dir.path())
        .because(format!("all of {first}..={last} are taken"))
        .hinted("tear a VM down, or widen the range"))
}

/// Gives back the uid, if this jail has it.
pub(crate) fn give_back(base: &TrustedDir, jail: &JailId, uid: u32) -> Result<()> {
    let Some(dir) = leases(base)? else { return Ok(()) };
    let name = Name::try_from(uid.to_string())?;
    if holder(&dir, &name)?.as_deref() == Some(jail.as_str()) {
        jail_fs::scrub(dir.dir(), &[name])
            .map_err(|error| Failure::files("give back a uid", error))?;
        teardown::remove_if_empty(base, &dir);
    }
    Ok(())
}

/// Removes the directory of leases, if there are none.
pub(crate) fn remove_if_none(base: &TrustedDir) -> Result<()> {
    if let Some(dir) = leases(base)? {
        teardown::remove_if_empty(base, &dir);
    }
    Ok(())
}

/// Every uid that is leased, and the id of its jail.
pub(crate) fn all(base: &TrustedDir) -> Result<Vec<(u32, String)>> {
    let Some(dir) = leases(base)? else { return Ok(Vec::new()) };
    let mut all = Vec::new();
    for name in dir.entries()? {
        if let Some(uid) = name.as_str().and_then(|name| name.parse().ok())
            && let Some(jail) = holder(&dir, &name)?
        {
            all.push((uid, jail));
        }
    }
    Ok(all)
}

fn leases(base: &TrustedDir) -> Result<Option<TrustedDir>> {
    match base.child(&Name::try_from(DIR)?) {
        Ok(dir) => Ok(Some(dir)),
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            Err(Failure::files("read the leased uids", error)
                .path(base.path().join(Path::new(DIR))))
        }
    }
}

fn holder(dir: &TrustedDir, name: &Name) -> Result<Option<String>> {
    match jail_fs::read_small(dir.dir(), name, MAX_BYTES) {
        Ok(bytes) => Ok(String::from_utf8(bytes).ok()),
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::files("read who has a uid", error)),
    }
}

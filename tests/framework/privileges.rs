//! Reduces the privileges of the calling thread: uid, groups and capabilities.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_gid,
    set_thread_groups, set_thread_uid,
};

/// Changes the calling thread to `uid`, an equal gid and the supplementary group `group`, and sets all capability sets
/// to `set`. A program executed by the thread keeps the capabilities (capabilities(7)).
///
/// Call this function in a new process, which then executes the test again ([`reenter`](crate::reenter)).
///
/// # Panics
/// If the kernel refuses.
pub fn become_user(uid: u32, group: u32, set: CapabilitySet) {
    for capability in CapabilitySet::all().difference(set) {
        // Fails for capabilities that the kernel does not have.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let panic = |errno| panic!("become uid {uid} with {set:?}: {errno}");
    if uid != 0 {
        set_thread_groups(&[Gid::from_raw(group)]).unwrap_or_else(panic);
        set_keep_capabilities(true).unwrap_or_else(panic);
        set_thread_gid(Gid::from_raw(uid)).unwrap_or_else(panic);
        set_thread_uid(Uid::from_raw(uid)).unwrap_or_else(panic);
    }
    let sets = CapabilitySets { effective: set, permitted: set, inheritable: set };
    set_capabilities(None, sets).unwrap_or_else(panic);
    if uid != 0 {
        for capability in set {
            configure_capability_in_ambient_set(capability, true).unwrap_or_else(panic);
        }
    }
}

/// Calls `run` with `set` as the effective capabilities of the calling thread, and restores the old set.
///
/// # Panics
/// If the kernel refuses, because a capability is not permitted.
pub fn with_effective<T>(set: CapabilitySet, run: impl FnOnce() -> T) -> T {
    let before = capabilities(None).expect("a thread may read its own sets");
    let make_effective = |set| {
        set_capabilities(None, CapabilitySets { effective: set, ..before })
            .unwrap_or_else(|errno| panic!("have the effective capabilities {set:?}: {errno}"));
    };
    make_effective(set);
    let result = run();
    make_effective(before.effective);
    result
}

//! Fewer privileges for this process: capabilities, users, system calls.

use rustix::process::{Gid, Uid};
use rustix::thread::{
    CapabilitySet, CapabilitySets, capabilities, configure_capability_in_ambient_set,
    remove_capability_from_bounding_set, set_capabilities, set_keep_capabilities, set_thread_gid,
    set_thread_groups, set_thread_uid,
};

/// Makes the calling thread `uid`, gid alike and in the further group `group`, with these capabilities and no others in
/// every set: what it executes has them too (capabilities(7)).
///
/// To be called in a process of its own, which then executes itself again ([`reenter`](crate::reenter)).
///
/// # Panics
/// When the kernel refuses.
pub fn become_user(uid: u32, group: u32, set: CapabilitySet) {
    for capability in CapabilitySet::all().difference(set) {
        // The kernel has fewer than there are names.
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

/// Calls `run` while the calling thread has these effective capabilities alone.
///
/// # Panics
/// When the kernel refuses, for one that is not permitted.
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

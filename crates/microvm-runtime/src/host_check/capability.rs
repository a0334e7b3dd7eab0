//! The capabilities that each verb needs: the least set, found by dropping each capability in turn.

use super::Verb;
use super::fault::Fault;
use super::proc_mount::ThreadStatus;
use crate::error::ErrorKind;
use crate::sys::process::{CapabilitySet, effective_uid, root_gains_nothing};

/// A capability, the reason for it, and the verbs that need it.
struct Need {
    capability: CapabilitySet,
    name: &'static str,
    reason: &'static str,
    verbs: &'static [Verb],
    /// Whether the jailer needs the capability too. As root it has what is in the bounding set.
    jailer: bool,
}

use Verb::{
    Adopt, Api, Inspect, Kill, Launch, List, Prepare, PrepareNodes, Remove, Shutdown, Snapshot,
    Stats, Sweep,
};

const NEEDS: &[Need] = &[
    Need {
        capability: CapabilitySet::CHOWN,
        name: "CAP_CHOWN",
        reason: "a VM's files are given to its uid, and lent drives back to their owner",
        verbs: &[Prepare, PrepareNodes, Launch, Remove, Sweep],
        jailer: true,
    },
    Need {
        capability: CapabilitySet::DAC_OVERRIDE,
        name: "CAP_DAC_OVERRIDE",
        reason: "jails and control groups belong to root and to the VM's uid",
        verbs: &[Prepare, PrepareNodes, Launch, Adopt, Inspect, Api, Snapshot, Remove, Sweep],
        jailer: true,
    },
    Need {
        capability: CapabilitySet::FOWNER,
        name: "CAP_FOWNER",
        reason: "a VM may make its directories sticky, and they must be removable",
        verbs: &[Prepare, PrepareNodes, Launch, Snapshot, Remove, Sweep],
        jailer: false,
    },
    Need {
        capability: CapabilitySet::MKNOD,
        name: "CAP_MKNOD",
        reason: "the jail has device nodes",
        verbs: &[PrepareNodes, Launch],
        jailer: true,
    },
    Need {
        capability: CapabilitySet::SETUID,
        name: "CAP_SETUID",
        reason: "the jailer switches to the VM's uid",
        verbs: &[Launch],
        jailer: true,
    },
    Need {
        capability: CapabilitySet::SETGID,
        name: "CAP_SETGID",
        reason: "the jailer switches to the VM's gid",
        verbs: &[Launch],
        jailer: true,
    },
    Need {
        capability: CapabilitySet::SYS_ADMIN,
        name: "CAP_SYS_ADMIN",
        reason: "a VM has namespaces of its own, and its control group the mark of its jail",
        verbs: &[
            Prepare,
            PrepareNodes,
            Launch,
            List,
            Adopt,
            Stats,
            Snapshot,
            Shutdown,
            Kill,
            Remove,
            Sweep,
        ],
        jailer: true,
    },
    Need {
        capability: CapabilitySet::SYS_PTRACE,
        name: "CAP_SYS_PTRACE",
        reason: "a VMM is recognised by its root directory and its executable",
        verbs: &[Launch, List, Adopt, Inspect, Remove, Sweep],
        jailer: false,
    },
    Need {
        capability: CapabilitySet::KILL,
        name: "CAP_KILL",
        reason: "the VMM runs as another uid",
        verbs: &[Launch, Shutdown, Kill, Remove, Sweep],
        jailer: false,
    },
];

/// Names every capability that the verb needs and that is not in the effective set; for a launch also those that the jailer
/// cannot get.
pub(super) fn check(verb: Verb, status: &ThreadStatus) -> Result<(), Fault> {
    let mut missing = Vec::new();
    for need in NEEDS.iter().filter(|need| need.verbs.contains(&verb)) {
        if status.effective & need.capability.bits() == 0 {
            missing.push(format!("{} is missing: {}", need.name, need.reason));
        } else if verb == Launch && need.jailer && status.bounding & need.capability.bits() == 0 {
            missing.push(format!("{} is missing in the bounding set: {}", need.name, need.reason));
        }
    }
    if verb == Launch && root_gains_nothing() {
        missing.push("SECBIT_NOROOT is set: the jailer has no capability as root".to_owned());
    }
    if missing.is_empty() {
        return Ok(());
    }
    let fix = if effective_uid() == 0 {
        "Leave the launcher these capabilities: CapabilityBoundingSet= of a systemd unit, `--cap-add` of a container."
    } else {
        "Run as root, or give the launcher these capabilities: AmbientCapabilities= of a systemd unit, `setpriv --ambient-caps`."
    };
    Err(Fault::new(ErrorKind::Privilege, missing.join("; "), fix))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(effective: CapabilitySet, bounding: CapabilitySet) -> ThreadStatus {
        ThreadStatus { effective: effective.bits(), bounding: bounding.bits(), filtered: false }
    }

    #[test]
    fn missing_capabilities_are_named() {
        let without = CapabilitySet::all().difference(CapabilitySet::SETUID | CapabilitySet::KILL);
        let fault = check(Launch, &status(without, CapabilitySet::all())).unwrap_err();
        assert_eq!(fault.kind, ErrorKind::Privilege);
        assert_eq!(
            fault.found,
            "CAP_SETUID is missing: the jailer switches to the VM's uid; CAP_KILL is missing: the VMM runs as another uid"
        );
        check(Prepare, &status(without, CapabilitySet::empty())).unwrap();
    }

    #[test]
    fn a_launch_looks_at_the_bounding_set() {
        let without = CapabilitySet::all().difference(CapabilitySet::SYS_ADMIN);
        let fault = check(Launch, &status(CapabilitySet::all(), without)).unwrap_err();
        assert!(fault.found.starts_with("CAP_SYS_ADMIN is missing in the bounding set"));
        check(Adopt, &status(CapabilitySet::all(), CapabilitySet::empty())).unwrap();
    }
}

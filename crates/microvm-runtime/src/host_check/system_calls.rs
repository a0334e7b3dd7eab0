//! Whether the kernel has, and a seccomp filter allows, the system calls that a verb makes.

use super::fault::Fault;
use crate::error::ErrorKind;
use crate::sys::{Errno, Probe};

/// Makes each call with arguments that the kernel refuses, and names those that do not exist or are not allowed.
///
/// # Caveats
/// A filter that kills the process for such a call kills it here.
pub(super) fn check(probes: &[Probe], filtered: bool) -> Result<(), Fault> {
    let mut refused = Vec::new();
    for probe in probes {
        match Errno::from_raw_os_error(probe.errno()) {
            // A kernel without keys: nothing is shared then.
            Errno::NOSYS if probe.name == "keyctl" => {}
            Errno::NOSYS => refused.push(format!("{} (ENOSYS)", probe.name)),
            Errno::PERM => refused.push(format!("{} (EPERM)", probe.name)),
            Errno::ACCESS => refused.push(format!("{} (EACCES)", probe.name)),
            _ => {}
        }
    }
    if refused.is_empty() {
        return Ok(());
    }
    let refused = refused.join(", ");
    Err(if filtered {
        Fault::new(
            ErrorKind::Unsupported,
            format!("a seccomp filter of this process refuses {refused}"),
            "Allow these calls in the filter: SystemCallFilter= of a systemd unit, the seccomp profile of a container.",
        )
    } else {
        Fault::new(
            ErrorKind::Unsupported,
            format!("the kernel refuses {refused}"),
            "Run Linux 5.10 or newer, under no security module or sandbox that refuses these calls.",
        )
    })
}

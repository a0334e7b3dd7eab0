//! How a VM ended.

use serde::Serialize;

use crate::process::ExitStatus;

/// How a VM ended: the VMM's status, and whether the kernel killed something of it for want of memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Exit {
    /// The VMM's own status; unknown where the kernel cannot tell, never 0 then.
    pub status: ExitStatus,
    /// Whether the VM's control group has seen an OOM kill; `None` if the VM had no control group of its own, or somebody
    /// else removed it.
    pub oom_killed: Option<bool>,
}

impl Exit {
    /// Whether the VMM ended by itself with status 0, as it does when the guest resets.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == ExitStatus::Exited(0)
    }
}

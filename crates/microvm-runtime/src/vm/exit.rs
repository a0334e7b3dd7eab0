//! The end of a VM.

use serde::Serialize;

use crate::vmm::ExitStatus;

/// The end of a VM: the VMM's status, and the kernel's OOM kills in the VM's control group.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Exit {
    /// The exit status of the VMM; if the kernel cannot report the status, unknown and never 0.
    pub status: ExitStatus,
    /// True after an OOM kill in the VM's control group; `None` if the VM had no control group, or if another program
    /// removed the control group.
    pub oom_killed: Option<bool>,
}

impl Exit {
    /// Returns true if the VMM exited with status 0, as the VMM does when the guest resets.
    #[must_use]
    pub fn success(&self) -> bool {
        self.status == ExitStatus::Exited(0)
    }
}

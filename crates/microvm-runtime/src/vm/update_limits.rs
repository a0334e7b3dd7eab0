//! Changing the limits of a running VM: [`Vm::update_limits`].

use jail_cgroup::{Host, LimitChange, Limits};

use crate::error::{Error, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::trace;
use crate::vm::{Vm, running};

impl Vm {
    /// Writes `limits` to the VM's control group, reads each back, and returns the old values. Limits that `limits`
    /// leaves out stay.
    ///
    /// If the kernel refuses a value, or keeps another one, the old values are restored. The spec in the jail's record
    /// stays: the next start of the VM has the limits of the spec.
    ///
    /// # Errors
    /// [`Cgroup`](crate::ErrorKind::Cgroup) and [`Unsupported`](crate::ErrorKind::Unsupported) name the limit; a hint
    /// names values that could not be restored. [`Identity`](crate::ErrorKind::Identity) if the VM has ended.
    ///
    /// # Privileges
    /// Root.
    pub fn update_limits(&self, limits: &Limits) -> VmRuntimeResult<Vec<LimitChange>> {
        Ok(trace::verb("update_limits", self.vm_id(), || {
            self.change_limits(limits).map_err(|failure| host_check::explain(Verb::Stats, failure))
        })?)
    }

    fn change_limits(&self, limits: &Limits) -> Result<Vec<LimitChange>> {
        let operation = "change the VM's limits";
        // Held to the end: once the VM's end is seen, the leaf may be another VM's.
        let life = self.life();
        running(&life, operation)?;
        self.refuse_ended(operation)?;
        let leaf = self.leaf(operation)?;
        let host = Host::discover()?;
        leaf.update(&host, limits).map_err(|error| Error::cgroup(operation, error))
    }
}

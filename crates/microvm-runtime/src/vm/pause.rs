//! Pausing and resuming the guest.

use std::time::Duration;

use crate::api::Api;
use crate::deadline::Deadline;
use crate::error::{Error, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::vm::Vm;

/// The time limit for Firecracker to stop or start the vCPUs.
const PATIENCE: Duration = Duration::from_secs(10);

impl Vm {
    /// Pauses the guest (`PATCH /vm`): the vCPUs stop, memory and devices stay. Fine for a guest that is paused.
    ///
    /// A paused guest outlives its launcher: after [`adopt`](crate::Jailer::adopt), [`resume`](Self::resume) it.
    ///
    /// # Errors
    /// As [`Api::request`](crate::Api::request), within 10 s.
    pub fn pause(&self) -> VmRuntimeResult<()> {
        self.ask_within_patience(Api::pause)
    }

    /// Resumes a paused guest (`PATCH /vm`). Fine for a guest that runs.
    ///
    /// # Errors
    /// As [`pause`](Self::pause).
    pub fn resume(&self) -> VmRuntimeResult<()> {
        self.ask_within_patience(Api::resume)
    }

    fn ask_within_patience(
        &self,
        request: impl FnOnce(&Api) -> VmRuntimeResult<()>,
    ) -> VmRuntimeResult<()> {
        let deadline = Deadline::after(PATIENCE);
        let asked = self
            .connect(deadline)
            .and_then(|api| request(&api.until(deadline)).map_err(Error::from));
        Ok(asked.map_err(|failure| host_check::explain(Verb::Api, failure))?)
    }
}

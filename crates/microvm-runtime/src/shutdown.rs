//! Stopping a VM: ask the guest, then kill. SIGTERM is not on the ladder, since PID 1 ignores it.

use std::time::{Duration, Instant};

use crate::api::Action;
use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};
use crate::exit::Exit;
use crate::trace;
use crate::vm::Vm;

/// How long a killed VMM may take to be gone.
const DEATH: Duration = Duration::from_secs(10);

impl Vm {
    /// Asks the guest to shut down (`SendCtrlAltDel` over the API), waits for `grace`, and then [kills](Self::kill) it.
    ///
    /// Fine for a VM that has ended already. Nothing on the host is removed: that is
    /// [`Jailer::teardown`](crate::Jailer::teardown).
    ///
    /// # Errors
    /// As [`kill`](Self::kill). An API that does not answer is no error: the VM is killed.
    pub fn shutdown(&mut self, grace: Duration) -> VmRuntimeResult<Exit> {
        let vm_id = self.record.vm_id.clone();
        Ok(trace::verb("shutdown", &vm_id, || self.ask_then_kill(grace))?)
    }

    /// Kills the VMM by its pidfd, and whatever else is in its control group (`cgroup.kill`), and waits for its end.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) where the kernel does not let go of it within 10 s.
    pub fn kill(&mut self) -> VmRuntimeResult<Exit> {
        let vm_id = self.record.vm_id.clone();
        Ok(trace::verb("kill", &vm_id, || self.kill_and_wait())?)
    }

    fn ask_then_kill(&mut self, grace: Duration) -> Result<Exit> {
        let deadline = Instant::now() + grace;
        if let Some(exit) = self.ended_by(Instant::now())? {
            return Ok(exit);
        }
        // A guest without a keyboard driver, a paused one and a hostile one all do not answer; the kill is for them.
        let asked = self.connect().map(|api| api.deadline(deadline).action(Action::SendCtrlAltDel));
        if matches!(asked, Ok(Ok(())))
            && let Some(exit) = self.ended_by(deadline)?
        {
            return Ok(exit);
        }
        self.kill_and_wait()
    }

    fn kill_and_wait(&mut self) -> Result<Exit> {
        self.kill_all()?;
        self.ended_by(Instant::now() + DEATH)?.ok_or_else(|| {
            Failure::new(ErrorKind::Timeout, "kill the VM")
                .because(format!("process {} is still there after {DEATH:?}", self.pid()))
        })
    }

    fn kill_all(&self) -> Result<()> {
        self.process.kill()?;
        if let Some(leaf) = &self.leaf {
            leaf.kill().map_err(|error| Failure::cgroup("kill the VM's control group", error))?;
        }
        Ok(())
    }
}

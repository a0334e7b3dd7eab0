//! Stopping a VM: ask the guest, then kill. SIGTERM is not on the ladder, since PID 1 ignores it.

use std::time::Duration;

use crate::api::Action;
use crate::deadline::{Deadline, KILL_TIMEOUT};
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::trace;
use crate::vm::exit::Exit;
use crate::vm::{Life, Vm};

impl Vm {
    /// Asks the guest to shut down (`SendCtrlAltDel` over the API), waits for `grace`, and then [kills](Self::kill) the VM.
    ///
    /// Fine for a VM that has ended already. Nothing on the host is removed: that is
    /// [`Jailer::remove`](crate::Jailer::remove). `Duration::MAX` waits for the guest for ever.
    ///
    /// # Errors
    /// As [`kill`](Self::kill). An API that does not answer is no error: the VM is killed.
    pub fn shutdown(&self, grace: Duration) -> VmRuntimeResult<Exit> {
        Ok(trace::verb("shutdown", self.vm_id(), || {
            self.ask_then_kill(grace)
                .map_err(|failure| host_check::explain(Verb::Shutdown, failure))
        })?)
    }

    /// Kills the VMM by pidfd and all other processes of the control group (`cgroup.kill`), and waits for the VMM's end.
    ///
    /// # Errors
    /// [`Timeout`](crate::ErrorKind::Timeout) if the kernel does not let go of the VMM within 10 s.
    pub fn kill(&self) -> VmRuntimeResult<Exit> {
        Ok(trace::verb("kill", self.vm_id(), || self.kill_and_wait())?)
    }

    /// Sends the [kill](Self::kill) and returns without a wait for the end of the VM.
    ///
    /// # Errors
    /// [`Privilege`](crate::ErrorKind::Privilege) and [`Cgroup`](crate::ErrorKind::Cgroup) if the kernel refuses.
    pub fn start_kill(&self) -> VmRuntimeResult<()> {
        Ok(self.send_kill()?)
    }

    fn ask_then_kill(&self, grace: Duration) -> Result<Exit> {
        let deadline = Deadline::after(grace);
        if let Some(exit) = self.ended_by(Deadline::now())? {
            return Ok(exit);
        }
        // A guest without a keyboard driver, a paused one and a hostile one all do not answer; the kill is for them.
        let asked =
            self.connect(deadline).map(|api| api.until(deadline).action(Action::SendCtrlAltDel));
        if matches!(asked, Ok(Ok(()))) {
            if let Some(exit) = self.ended_by(deadline)? {
                return Ok(exit);
            }
        }
        self.kill_and_wait()
    }

    fn kill_and_wait(&self) -> Result<Exit> {
        let sent = self.send_kill();
        let ended = self.ended_by(Deadline::after(KILL_TIMEOUT));
        // The VMM may be gone all the same, but something else in its control group is not.
        sent?;
        ended?.ok_or_else(|| self.outlived(KILL_TIMEOUT))
    }

    /// The error of a VMM that was killed and did not end within `timeout`.
    pub(crate) fn outlived(&self, timeout: Duration) -> Error {
        Error::new(ErrorKind::Timeout, "kill the VM")
            .because(format!("process {} is still there after {timeout:?}", self.pid()))
    }

    pub(crate) fn send_kill(&self) -> Result<()> {
        // Held until the kill is sent: once the end is seen, the leaf may be another VM's.
        let life = self.life();
        if matches!(*life, Life::Seen(_)) {
            return Ok(());
        }
        let kill_leaf = || {
            let Some(leaf) = self.open_leaf()? else {
                // Without CAP_SYS_ADMIN the mark of the leaf cannot be read, and the leaf seems to be another's.
                return if self.record.leaf.is_some() {
                    host_check::before(Verb::Kill)
                } else {
                    Ok(())
                };
            };
            leaf.kill().map_err(|error| Error::cgroup("kill the VM's control group", error))
        };
        self.process
            .kill()
            .and_then(|()| kill_leaf())
            .map_err(|failure| host_check::explain(Verb::Kill, failure))
    }
}

//! Many VMs at once: [`Vm::kill_all`] and [`Jailer::remove_all`].

use crate::deadline::{Deadline, KILL_TIMEOUT};
use crate::error::VmRuntimeResult;
use crate::jail::remove::RemoveReport;
use crate::jailer::Jailer;
use crate::vm::Vm;
use crate::vm::exit::Exit;

/// One VM of [`Jailer::remove_all`]: its end, and the removal of its jail.
#[derive(Debug)]
#[non_exhaustive]
pub struct VmRemoveReport {
    /// The VM's id, unchanged.
    pub vm_id: String,
    /// The end of the VM, or the reason why the VM's end was not seen.
    pub exit: VmRuntimeResult<Exit>,
    /// The report of the removal, or the reason why the removal failed.
    pub removal: VmRuntimeResult<RemoveReport>,
}

impl Vm {
    /// Kills many VMs and waits for all VMs together; returns one result per VM, in the given order.
    ///
    /// Every kill is sent before the first wait ([`start_kill`](Self::start_kill)), and all waits share one deadline of
    /// 10 s: the kernel ends the VMs side by side, so the call takes as long as the slowest end. A VM that cannot be
    /// killed does not delay the others.
    pub fn kill_all<'a>(vms: impl IntoIterator<Item = &'a Self>) -> Vec<VmRuntimeResult<Exit>> {
        let sent = vms.into_iter().map(|vm| (vm, vm.send_kill())).collect::<Vec<_>>();
        let deadline = Deadline::after(KILL_TIMEOUT);
        sent.into_iter()
            .map(|(vm, sent)| {
                // Also of a VM whose kill failed: it may have ended all the same, and then its locks go.
                let ended = vm.ended_by(deadline);
                sent?;
                Ok(ended?.ok_or_else(|| vm.outlived(KILL_TIMEOUT))?)
            })
            .collect()
    }
}

impl Jailer {
    /// Kills many VMs at once ([`Vm::kill_all`]), then removes the jail of each as [`remove`](Self::remove) does.
    ///
    /// A VM that cannot be removed keeps no other from its removal: each result stands in its own entry, in the order
    /// given.
    ///
    /// # Privileges
    /// Root.
    pub fn remove_all(&self, vms: impl IntoIterator<Item = Vm>) -> Vec<VmRemoveReport> {
        let vms = vms.into_iter().collect::<Vec<_>>();
        let exits = Vm::kill_all(&vms);
        let removed = vms.into_iter().zip(exits).map(|(vm, exit)| {
            let vm_id = vm.vm_id().to_owned();
            // Also of a VM whose end was not seen: its jail's lock must not stand in the way.
            drop(vm);
            let removal = self.remove(&vm_id);
            VmRemoveReport { vm_id, exit, removal }
        });
        removed.collect()
    }
}

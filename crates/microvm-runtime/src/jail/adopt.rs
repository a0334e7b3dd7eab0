//! Taking up a VM that another launcher started.

use jail_cmd::JailId;

use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::prepare::open_root;
use crate::jail::record::Progress;
use crate::jail::{self, Jail};
use crate::jailer::Jailer;
use crate::vm::{Vm, expected};
use crate::vmm::{Process, Running, Streams};

impl Jailer {
    /// Adopts the running VM `vm_id`, whose launcher has exited or has dropped the handle.
    ///
    /// Adoption proves that the recorded process is the VMM: start time, boot, uid, root and executable agree.
    ///
    /// # Errors
    /// [`NotFound`](ErrorKind::NotFound) if the VM has no jail or does not run, [`Busy`](ErrorKind::Busy) if another
    /// launcher holds the VM, [`Identity`](ErrorKind::Identity) if the process is not the VMM.
    ///
    /// # Privileges
    /// Root.
    pub fn adopt(&self, vm_id: &str) -> VmRuntimeResult<Vm> {
        Ok(self.take_up(vm_id)?)
    }

    fn take_up(&self, vm_id: &str) -> Result<Vm> {
        let operation = || format!("adopt the VM {vm_id:?}");
        let id = JailId::for_vm(vm_id)?;
        let none = |because: &str| {
            Error::new(ErrorKind::NotFound, operation())
                .because(because)
                .hinted("`Jailer::list` returns the VMs that run; launch this one anew.")
        };
        let Some(base) = self.open_base()? else {
            return Err(none("its chroot base does not exist"));
        };
        host_check::before(Verb::Adopt)?;
        let mut found = jail::exec_dirs(&base)?;
        for (_, exec_dir) in std::mem::take(&mut found.dirs) {
            let Some(jail) = Jail::lock(&exec_dir, &id)? else { continue };
            let record = jail.record()?;
            let Progress::Started(stamp) = &record.progress else {
                return Err(none("it was not started by a launcher"));
            };
            if !record.has_own_pids()? {
                return Err(Error::new(ErrorKind::Unsupported, operation())
                    .because("it was launched from another pid namespace")
                    .hinted("Adopt the VM from the pid namespace of its launcher."));
            }
            let Some(process) = Process::adopt(stamp, &expected(&record))? else {
                return Err(none("it has ended"));
            };
            let root = open_root(jail.dir(), record.root)?;
            let streams = Streams::of_running(jail.dir().dir(), &root, &record.spec.console)?;
            return Ok(Vm::adopted(jail, record, Running { process, streams }));
        }
        found.refuse_hidden(&base, &id)?;
        Err(none("it has no jail"))
    }
}

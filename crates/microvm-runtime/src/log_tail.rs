//! What Firecracker writes to files in its jail: [`Vm::log_tail`], [`Vm::metrics_tail`].

use jail_cmd::in_jail;

use crate::error::{ErrorKind, Failure, Result, VmRuntimeResult};
use crate::process::read_tail;
use crate::vm::Vm;

impl Vm {
    /// The last `bytes` of Firecracker's log, as text.
    ///
    /// The file is the VM's by now, which may have put anything in its place: it is read only if it is a regular file
    /// with one name, below the held root (`openat2(2)`), and no more of it than `bytes`.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) where the spec asked for no log;
    /// [`Untrusted`](ErrorKind::Untrusted) where the VM has put something else in its place;
    /// [`NotFound`](ErrorKind::NotFound) where it has removed it.
    ///
    /// # Privileges
    /// Root: the file is the VM's uid's.
    pub fn log_tail(&self, bytes: u64) -> VmRuntimeResult<String> {
        let asked_for = self.record.spec.firecracker.log.is_some();
        Ok(self.tail("log", asked_for, in_jail::LOG, bytes)?)
    }

    /// The last `bytes` of Firecracker's metrics, a JSON document a line, read as [`log_tail`](Self::log_tail) reads the
    /// log.
    ///
    /// # Errors
    /// As [`log_tail`](Self::log_tail).
    ///
    /// # Privileges
    /// Root.
    pub fn metrics_tail(&self, bytes: u64) -> VmRuntimeResult<String> {
        let asked_for = self.record.spec.firecracker.metrics;
        Ok(self.tail("metrics", asked_for, in_jail::METRICS, bytes)?)
    }

    fn tail(&self, what: &str, asked_for: bool, name: &str, bytes: u64) -> Result<String> {
        let operation = || format!("read the VM's {what}");
        if !asked_for {
            return Err(Failure::new(ErrorKind::Unsupported, operation())
                .because("it writes none")
                .hinted("ask for it in the spec's `FirecrackerOptions`"));
        }
        let file = jail_fs::open_file(&self.root, name)
            .map_err(|error| Failure::files(operation(), error))?;
        read_tail(&file, 0, bytes).map_err(|error| {
            Failure::new(ErrorKind::Filesystem, operation()).path(name).source_of(error)
        })
    }
}

//! Firecracker's metrics file in the jail: [`Vm::metrics_tail`].

use jail_cmd::in_jail;

use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::vm::Vm;
use crate::vmm::read_tail;

impl Vm {
    /// Returns the last `bytes` of Firecracker's metrics, a JSON document a line.
    ///
    /// The VM owns the file, and may have put anything in its place: it is read only if it is a regular file with one
    /// name, below the held root (`openat2(2)`), and no more of it than `bytes`.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the spec asked for no metrics;
    /// [`Untrusted`](ErrorKind::Untrusted) if the VM has put something else in their place;
    /// [`NotFound`](ErrorKind::NotFound) if the VM has removed the file.
    ///
    /// # Privileges
    /// Root: the file is the VM's uid's.
    pub fn metrics_tail(&self, bytes: u64) -> VmRuntimeResult<String> {
        Ok(self.read_metrics(bytes)?)
    }

    fn read_metrics(&self, bytes: u64) -> Result<String> {
        let operation = "read the VM's metrics";
        if !self.record.spec.firecracker.metrics {
            return Err(Error::new(ErrorKind::Unsupported, operation)
                .because("it writes none")
                .hinted("Ask for metrics in the spec's `FirecrackerOptions`."));
        }
        let file = jail_fs::open_file(&self.root()?, in_jail::METRICS)
            .map_err(|error| Error::files(operation, error))?;
        read_tail(&file, 0, bytes).map_err(|error| {
            Error::new(ErrorKind::Filesystem, operation).path(in_jail::METRICS).source_of(error)
        })
    }
}

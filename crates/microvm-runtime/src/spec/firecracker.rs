//! Firecracker's own options.

use jail_cmd::LogLevel;
use serde::{Deserialize, Serialize};

/// Options of Firecracker, other than the API and the machine.
///
/// The log goes to [`Vm::log`](crate::Vm::log) in any case. There is no way to switch the seccomp filter off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FirecrackerOptions {
    pub(crate) log_level: Option<LogLevel>,
    pub(crate) metrics: bool,
    pub(crate) boot_timer: bool,
    pub(crate) enable_pci: bool,
    pub(crate) http_api_max_payload_size: Option<u64>,
    pub(crate) mmds_size_limit: Option<u64>,
}

impl FirecrackerOptions {
    /// No options.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Logs from this level on (`--level`). Without `Error` lines, the error of a failed launch may lack the reason.
    #[must_use]
    pub fn log_level(mut self, level: LogLevel) -> Self {
        self.log_level = Some(level);
        self
    }

    /// Writes metrics to `/metrics` in the jail (`--metrics-path`).
    #[must_use]
    pub fn metrics(mut self) -> Self {
        self.metrics = true;
        self
    }

    /// Gives the guest a device that reports the boot time (`--boot-timer`).
    #[must_use]
    pub fn boot_timer(mut self) -> Self {
        self.boot_timer = true;
        self
    }

    /// Gives the guest PCI transport (`--enable-pci`).
    #[must_use]
    pub fn enable_pci(mut self) -> Self {
        self.enable_pci = true;
        self
    }

    /// Largest request body of the API, in bytes (`--http-api-max-payload-size`).
    #[must_use]
    pub fn http_api_max_payload_size(mut self, bytes: u64) -> Self {
        self.http_api_max_payload_size = Some(bytes);
        self
    }

    /// Largest metadata store, in bytes (`--mmds-size-limit`).
    #[must_use]
    pub fn mmds_size_limit(mut self, bytes: u64) -> Self {
        self.mmds_size_limit = Some(bytes);
        self
    }
}

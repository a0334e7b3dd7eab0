//! Firecracker's own options.

use jail_cmd::LogLevel;
use serde::{Deserialize, Serialize};

/// Firecracker's default for the largest request body, in bytes.
const MAX_PAYLOAD: u64 = 51_200;

/// Options of Firecracker, other than the API and the machine.
///
/// The log goes to [`Vm::log`](crate::Vm::log) in any case. There is no way to switch the seccomp filter off.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct FirecrackerOptions {
    pub(crate) log_level: Option<LogLevel>,
    #[serde(default)]
    pub(crate) show_level: bool,
    #[serde(default)]
    pub(crate) show_log_origin: bool,
    #[serde(default)]
    pub(crate) log_module: Option<String>,
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

    /// Logs the level of each message (`--show-level`).
    #[must_use]
    pub fn show_level(mut self) -> Self {
        self.show_level = true;
        self
    }

    /// Logs the source file and line of each message (`--show-log-origin`).
    #[must_use]
    pub fn show_log_origin(mut self) -> Self {
        self.show_log_origin = true;
        self
    }

    /// Logs this module of Firecracker alone, such as `vmm::devices` (`--module`). Firecracker 1.6.0.
    #[must_use]
    pub fn log_module(mut self, module: impl Into<String>) -> Self {
        self.log_module = Some(module.into());
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

    /// Returns the size of the metadata store, in bytes: Firecracker's default is the largest request body.
    pub(crate) fn mmds_limit(&self) -> u64 {
        self.mmds_size_limit.or(self.http_api_max_payload_size).unwrap_or(MAX_PAYLOAD)
    }
}

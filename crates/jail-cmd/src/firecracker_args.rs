//! Firecracker's own arguments, after the jailer's `--`: [`FirecrackerArgs`].

use std::ffi::OsString;
use std::fmt::Display;

use crate::{Error, ErrorKind, Feature, JailPath, JailerVersion, LogLevel, LogModule};

/// Firecracker's own arguments, after the jailer's `--`. Each is optional; paths are paths in the
/// jail.
///
/// `--no-seccomp` cannot be expressed. Neither can the arguments that the jailer adds itself
/// (`--id` and the start times), nor the arguments that only print (`--help`, `--version`,
/// `--snapshot-version`, `--describe-snapshot`).
///
/// ```
/// use jail_cmd::{FirecrackerArgs, JailPath, LogLevel};
///
/// let args = FirecrackerArgs::new()
///     .api_sock(JailPath::new("/api.sock")?)
///     .log_path(JailPath::new("/firecracker.log")?)
///     .level(LogLevel::Info);
/// assert_eq!(args.to_argv(), ["--api-sock", "/api.sock", "--log-path", "/firecracker.log", "--level", "Info"]);
/// # Ok::<(), jail_cmd::Error>(())
/// ```
///
/// Source: `main_exec` in Firecracker's `src/firecracker/src/main.rs`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct FirecrackerArgs {
    pub(crate) api: Api,
    pub(crate) config_file: Option<JailPath>,
    pub(crate) metadata: Option<JailPath>,
    pub(crate) log_path: Option<JailPath>,
    pub(crate) level: Option<LogLevel>,
    pub(crate) module: Option<LogModule>,
    pub(crate) show_level: bool,
    pub(crate) show_log_origin: bool,
    pub(crate) metrics_path: Option<JailPath>,
    pub(crate) seccomp_filter: Option<JailPath>,
    pub(crate) boot_timer: bool,
    pub(crate) enable_pci: bool,
    pub(crate) http_api_max_payload_size: Option<u64>,
    pub(crate) mmds_size_limit: Option<u64>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub(crate) enum Api {
    /// Firecracker's own default, `/run/firecracker.socket`.
    #[default]
    Unsaid,
    Socket(JailPath),
    None,
}

impl FirecrackerArgs {
    /// No arguments: Firecracker serves its API at `/run/firecracker.socket`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Serves the API at this socket, which must not exist (`--api-sock`).
    #[must_use]
    pub fn api_sock(mut self, socket: JailPath) -> Self {
        self.api = Api::Socket(socket);
        self
    }

    /// Serves no API (`--no-api`); needs a [`config_file`](Self::config_file).
    #[must_use]
    pub fn no_api(mut self) -> Self {
        self.api = Api::None;
        self
    }

    /// Boots what this JSON file says (`--config-file`).
    #[must_use]
    pub fn config_file(mut self, path: JailPath) -> Self {
        self.config_file = Some(path);
        self
    }

    /// Fills the metadata store from this JSON file (`--metadata`).
    #[must_use]
    pub fn metadata(mut self, path: JailPath) -> Self {
        self.metadata = Some(path);
        self
    }

    /// Logs to this file or FIFO (`--log-path`); else to the standard output. Before release 1.14.0
    /// it must exist.
    #[must_use]
    pub fn log_path(mut self, path: JailPath) -> Self {
        self.log_path = Some(path);
        self
    }

    /// Logs from this level on (`--level`).
    #[must_use]
    pub fn level(mut self, level: LogLevel) -> Self {
        self.level = Some(level);
        self
    }

    /// Logs this module alone (`--module`). From release 1.6.0 on.
    #[must_use]
    pub fn module(mut self, module: LogModule) -> Self {
        self.module = Some(module);
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

    /// Writes metrics to this file or FIFO (`--metrics-path`). From release 1.2.0 on; before 1.14.0
    /// it must exist.
    #[must_use]
    pub fn metrics_path(mut self, path: JailPath) -> Self {
        self.metrics_path = Some(path);
        self
    }

    /// Filters system calls as this compiled file says instead of the built-in filter
    /// (`--seccomp-filter`).
    #[must_use]
    pub fn seccomp_filter(mut self, path: JailPath) -> Self {
        self.seccomp_filter = Some(path);
        self
    }

    /// Gives the guest a device that reports the boot time (`--boot-timer`).
    #[must_use]
    pub fn boot_timer(mut self) -> Self {
        self.boot_timer = true;
        self
    }

    /// Attaches devices by PCI instead of MMIO (`--enable-pci`). From release 1.13.0 on.
    #[must_use]
    pub fn enable_pci(mut self) -> Self {
        self.enable_pci = true;
        self
    }

    /// Largest request body of the API, in bytes (`--http-api-max-payload-size`). Firecracker's
    /// default is 51200.
    #[must_use]
    pub fn http_api_max_payload_size(mut self, bytes: u64) -> Self {
        self.http_api_max_payload_size = Some(bytes);
        self
    }

    /// Largest metadata store, in bytes (`--mmds-size-limit`). Firecracker's default is the API's
    /// payload size. From release 1.1.0 on.
    #[must_use]
    pub fn mmds_size_limit(mut self, bytes: u64) -> Self {
        self.mmds_size_limit = Some(bytes);
        self
    }

    /// The arguments, in a fixed order; those that were not set are not there.
    #[must_use]
    pub fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        match &self.api {
            Api::Unsaid => {}
            Api::Socket(socket) => option(&mut argv, "--api-sock", Some(socket)),
            Api::None => switch(&mut argv, "--no-api", true),
        }
        option(&mut argv, "--config-file", self.config_file.as_ref());
        option(&mut argv, "--metadata", self.metadata.as_ref());
        option(&mut argv, "--log-path", self.log_path.as_ref());
        option(&mut argv, "--level", self.level);
        option(&mut argv, "--module", self.module.as_ref());
        switch(&mut argv, "--show-level", self.show_level);
        switch(&mut argv, "--show-log-origin", self.show_log_origin);
        option(&mut argv, "--metrics-path", self.metrics_path.as_ref());
        option(&mut argv, "--seccomp-filter", self.seccomp_filter.as_ref());
        switch(&mut argv, "--boot-timer", self.boot_timer);
        switch(&mut argv, "--enable-pci", self.enable_pci);
        option(&mut argv, "--http-api-max-payload-size", self.http_api_max_payload_size);
        option(&mut argv, "--mmds-size-limit", self.mmds_size_limit);
        argv
    }

    /// Refuses what this release of Firecracker would refuse.
    ///
    /// # Errors
    /// [`ErrorKind::Combination`] and [`ErrorKind::UnsupportedByRelease`]; both name the argument.
    pub fn check(&self, release: JailerVersion) -> Result<(), Error> {
        self.check_combination()?;
        let newer = [
            (self.mmds_size_limit.is_some(), Feature::MmdsSizeLimit, "--mmds-size-limit"),
            (self.metrics_path.is_some(), Feature::MetricsPath, "--metrics-path"),
            (self.level == Some(LogLevel::Off), Feature::LevelOffAndTrace, "--level Off"),
            (self.level == Some(LogLevel::Trace), Feature::LevelOffAndTrace, "--level Trace"),
            (self.module.is_some(), Feature::LogModule, "--module"),
            (self.enable_pci, Feature::EnablePci, "--enable-pci"),
        ];
        newer
            .into_iter()
            .filter(|(used, ..)| *used)
            .try_for_each(|(_, feature, argument)| release.require(feature, argument))
    }

    pub(crate) fn check_combination(&self) -> Result<(), Error> {
        if self.api == Api::None && self.config_file.is_none() {
            return Err(Error::new(ErrorKind::Combination, "--no-api", "it needs `--config-file`"));
        }
        Ok(())
    }
}

/// Appends an argument and a value, as two items.
pub(crate) fn option(argv: &mut Vec<OsString>, name: &str, value: Option<impl Display>) {
    if let Some(value) = value {
        argv.extend([name.into(), value.to_string().into()]);
    }
}

/// Appends an argument without a value.
pub(crate) fn switch(argv: &mut Vec<OsString>, name: &str, on: bool) {
    if on {
        argv.push(name.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(path: &str) -> JailPath {
        JailPath::new(path).unwrap()
    }

    #[test]
    fn everything_at_once() {
        let args = FirecrackerArgs::new()
            .api_sock(path("/api.sock"))
            .config_file(path("/vm.json"))
            .metadata(path("/mmds.json"))
            .log_path(path("/log"))
            .level(LogLevel::Trace)
            .module(LogModule::new("vmm").unwrap())
            .show_level()
            .show_log_origin()
            .metrics_path(path("/metrics"))
            .seccomp_filter(path("/filter.bpf"))
            .boot_timer()
            .enable_pci()
            .http_api_max_payload_size(1)
            .mmds_size_limit(2);
        let expected = "--api-sock /api.sock --config-file /vm.json --metadata /mmds.json \
                        --log-path /log --level Trace --module vmm --show-level --show-log-origin \
                        --metrics-path /metrics --seccomp-filter /filter.bpf --boot-timer \
                        --enable-pci --http-api-max-payload-size 1 --mmds-size-limit 2";
        assert_eq!(args.to_argv(), expected.split(' ').collect::<Vec<_>>());
        args.check(JailerVersion::NEWEST).unwrap();
    }

    #[test]
    fn unset_options_are_absent() {
        assert!(FirecrackerArgs::new().to_argv().is_empty());
        FirecrackerArgs::new().check(JailerVersion::OLDEST).unwrap();
    }

    #[test]
    fn no_api_needs_a_config_file() {
        let error = FirecrackerArgs::new().no_api().check(JailerVersion::NEWEST).unwrap_err();
        assert_eq!((error.kind(), error.value()), (ErrorKind::Combination, "--no-api"));
        FirecrackerArgs::new()
            .no_api()
            .config_file(path("/vm.json"))
            .check(JailerVersion::OLDEST)
            .unwrap();
    }

    #[test]
    fn unsupported_arguments_are_named() {
        let args = FirecrackerArgs::new;
        for (args, argument, without, with) in [
            (args().mmds_size_limit(1), "--mmds-size-limit", (1, 0, 2), (1, 1, 0)),
            (args().metrics_path(path("/m")), "--metrics-path", (1, 1, 4), (1, 2, 0)),
            (args().level(LogLevel::Off), "--level Off", (1, 4, 1), (1, 5, 0)),
            (args().level(LogLevel::Trace), "--level Trace", (1, 4, 1), (1, 5, 0)),
            (args().module(LogModule::new("vmm").unwrap()), "--module", (1, 5, 1), (1, 6, 0)),
            (args().enable_pci(), "--enable-pci", (1, 12, 1), (1, 13, 0)),
        ] {
            let check = |(major, minor, patch)| args.check(JailerVersion::new(major, minor, patch));
            let error = check(without).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::UnsupportedByRelease, argument));
            assert!(
                error.to_string().contains(&format!("from {}.{}.{} on", with.0, with.1, with.2)),
                "{error}"
            );
            check(with).unwrap();
        }
    }
}

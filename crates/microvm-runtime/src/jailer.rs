//! The entry point of all verbs: [`Jailer`].

use std::sync::Arc;

use jail_cmd::{JailId, JailerVersion};
use jail_fs::{CopyOptions, TrustedDir};

use crate::error::{Error, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::remove::{self, RemoveReport};
use crate::plan::Plan;
use crate::plan::release::Releases;
use crate::spec::JailSpec;
use crate::trace;
use crate::vm::Vm;

// Callers of the 0.4 API name them from here.
pub use crate::compat::VmJail;
pub use crate::config::JailerConfig;

/// The maker of `/dev/kvm` and `/dev/net/tun` in a jail of [`Jailer::prepare`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceNodes {
    /// The official jailer, which refuses a jail that already has these nodes.
    #[default]
    ByJailer,
    /// [`Jailer::prepare`], for callers that start the VMM without the official jailer. The jail's root belongs to the
    /// uid at once.
    Precreate,
}

/// Starts Firecracker microVMs in the official jailer.
#[derive(Debug, Clone)]
pub struct Jailer {
    config: JailerConfig,
    nodes: DeviceNodes,
    releases: Arc<Releases>,
}

impl Jailer {
    /// A jailer of this configuration.
    #[must_use]
    pub fn new(config: JailerConfig) -> Self {
        Self { config, nodes: DeviceNodes::default(), releases: Arc::default() }
    }

    /// A jailer of [`JailerConfig::from_env`].
    #[must_use]
    pub fn from_env() -> Self {
        Self::new(JailerConfig::from_env())
    }

    /// Has [`prepare`](Self::prepare) make the device nodes, for callers without the official jailer.
    #[must_use]
    pub fn device_nodes(mut self, nodes: DeviceNodes) -> Self {
        self.nodes = nodes;
        self
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &JailerConfig {
        &self.config
    }

    pub(crate) fn nodes(&self) -> DeviceNodes {
        self.nodes
    }

    /// Returns the jailer's release. Runs `jailer --version` once, and again if the file was replaced.
    ///
    /// # Errors
    /// [`Spawn`](crate::ErrorKind::Spawn) if the jailer cannot be run, or prints no release.
    pub fn release(&self) -> VmRuntimeResult<JailerVersion> {
        Ok(self.releases.jailer(&self.config.jailer_bin)?.release)
    }

    /// Returns the plan for launching `spec`. Validates the whole spec and reads the host's state; changes nothing.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) names a bad id, uid, path, drive name or value;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) what this release or host cannot do;
    /// [`NotFound`](crate::ErrorKind::NotFound) a missing file.
    pub fn plan(&self, spec: &JailSpec) -> VmRuntimeResult<Plan> {
        host_check::before(Verb::Plan)?;
        Ok(self.plan_checked(spec)?)
    }

    /// Plans on a host that was checked.
    fn plan_checked(&self, spec: &JailSpec) -> Result<Plan> {
        if self.nodes == DeviceNodes::Precreate {
            return Err(Error::invalid(
                "plan the VM",
                "the official jailer starts in no jail that has device nodes",
            )
            .hinted("Use `DeviceNodes::Precreate` with `Jailer::prepare` only."));
        }
        Plan::new(&self.config, &self.releases, spec)
    }

    /// Plans, prepares and launches: returns when the VM is ready.
    ///
    /// Ready means that the API answered `GET /`; without an API, that Firecracker runs as the right uid, in the
    /// right root and control group. Where it does not come to that, nothing is left of the jail.
    ///
    /// # Errors
    /// Those of [`plan`](Self::plan), [`Plan::prepare`] and [`Prepared::launch`](crate::Prepared::launch).
    ///
    /// # Privileges
    /// Root.
    pub fn launch(&self, spec: &JailSpec) -> VmRuntimeResult<Vm> {
        host_check::before(Verb::Launch)?;
        // What a launch needs of the host is more than what planning and preparing need.
        self.plan_checked(spec)?.prepare_checked(&CopyOptions::default())?.launch()
    }

    /// Kills the processes of the VM's jail, then removes the jail, the control group and the lease of the uid.
    ///
    /// Succeeds with an empty report if no jail of this VM exists, so a second call is harmless.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for a bad id, [`Busy`](crate::ErrorKind::Busy) for a jail that
    /// another launcher holds, [`Mounted`](crate::ErrorKind::Mounted) for a mount in the jail, which is left alone,
    /// and [`Record`](crate::ErrorKind::Record) for a jail whose record is unreadable and may have processes.
    ///
    /// # Privileges
    /// As [`Plan::prepare`].
    pub fn remove(&self, vm_id: &str) -> VmRuntimeResult<RemoveReport> {
        let id = JailId::for_vm(vm_id).map_err(Error::from)?;
        match self.open_base()? {
            None => Ok(RemoveReport::default()),
            Some(base) => Ok(trace::verb("remove", vm_id, || {
                host_check::before(Verb::Remove)?;
                remove::remove_by_id(&base, &id)
            })?),
        }
    }

    /// Removes the jail `jail_id` as [`remove`](Self::remove) does. For a jail that [`list`](Self::list) returns
    /// without the id of a VM.
    ///
    /// # Errors
    /// As [`remove`](Self::remove).
    pub fn remove_jail(&self, jail_id: &JailId) -> VmRuntimeResult<RemoveReport> {
        let Some(base) = self.open_base()? else { return Ok(RemoveReport::default()) };
        Ok(trace::verb("remove", jail_id.as_str(), || {
            host_check::before(Verb::Remove)?;
            remove::remove_by_id(&base, jail_id)
        })?)
    }

    /// The chroot base, checked; `None` where there is none yet.
    pub(crate) fn open_base(&self) -> Result<Option<TrustedDir>> {
        match TrustedDir::open(&self.config.chroot_base) {
            Ok(base) => Ok(Some(base)),
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::files("open the chroot base", error)),
        }
    }
}

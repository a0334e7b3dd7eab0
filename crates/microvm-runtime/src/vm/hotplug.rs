//! Adding devices to a running VM, and removing devices (a developer preview of Firecracker 1.16.0).

use std::path::Path;
use std::time::Duration;

use jail_fs::{CopyOptions, Receipt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::spec::drive::{Drive, DriveKind};
use crate::spec::machine::{NetworkInterface, check_id};
use crate::spec::pmem::Pmem;
use crate::text_form::text_form;
use crate::trace;
use crate::vm::Vm;
use crate::vm::staging::StagedFile;

/// The kind of a device that can be removed from a running VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum DeviceKind {
    /// A drive.
    Drive,
    /// A network interface.
    Network,
    /// A pmem device.
    Pmem,
}

text_form!(DeviceKind, "kind of device", { Drive => "Drive", Network => "Network", Pmem => "Pmem" });

impl Vm {
    /// Stages the file of `drive` into the running jail as [`replace_drive`](Self::replace_drive) does, and adds the drive
    /// to the running VM (`PUT /drives/<name>`). Each request of Firecracker's API may take `timeout`.
    ///
    /// The guest gets no notice, and must scan the PCI bus. A developer preview of Firecracker's.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a Firecracker before 1.16.0, and for a VM without
    /// [`enable_pci`](crate::FirecrackerOptions::enable_pci); else as [`replace_drive`](Self::replace_drive).
    ///
    /// # Privileges
    /// Root.
    pub fn plug_drive(
        &self,
        drive: &Drive,
        options: &CopyOptions<'_>,
        timeout: Duration,
    ) -> VmRuntimeResult<Receipt> {
        Ok(self.plug("plug_drive", timeout, || {
            let config = drive.config(false)?;
            config.check()?;
            let file = (drive.name(), drive.source(), drive.kind());
            self.plug_file("drives", file, |path| json!(config.at(path)), options, timeout)
        })?)
    }

    /// Stages the file of a pmem device into the running jail, and adds the device to the running VM
    /// (`PUT /pmem/<name>`).
    ///
    /// # Errors
    /// As [`plug_drive`](Self::plug_drive).
    ///
    /// # Privileges
    /// Root.
    pub fn plug_pmem(
        &self,
        device: &Pmem,
        options: &CopyOptions<'_>,
        timeout: Duration,
    ) -> VmRuntimeResult<Receipt> {
        Ok(self.plug("plug_pmem", timeout, || {
            let config = device.config().root_device(false);
            config.check()?;
            let file = (device.name(), device.source(), device.kind());
            self.plug_file("pmem", file, |path| json!(config.at(path)), options, timeout)
        })?)
    }

    /// Adds a network interface to the running VM (`PUT /network-interfaces/<id>`). The tap device must exist in the
    /// VM's network namespace, for the VM's uid.
    ///
    /// # Errors
    /// As [`plug_drive`](Self::plug_drive).
    pub fn plug_network(
        &self,
        interface: &NetworkInterface,
        timeout: Duration,
    ) -> VmRuntimeResult<()> {
        Ok(self.plug("plug_network", timeout, || {
            interface.check()?;
            let path = format!("/network-interfaces/{}", interface.id());
            self.send("PUT", &path, Some(&json!(interface)), timeout)
        })?)
    }

    /// Removes a device from the running VM (`DELETE`). The guest must have removed the device before. A staged file
    /// stays in the jail until the teardown.
    ///
    /// # Errors
    /// As [`plug_drive`](Self::plug_drive).
    pub fn unplug(&self, kind: DeviceKind, id: &str, timeout: Duration) -> VmRuntimeResult<()> {
        Ok(self.plug("unplug", timeout, || {
            check_id("unplug the device", id)?;
            let section = match kind {
                DeviceKind::Drive => "drives",
                DeviceKind::Network => "network-interfaces",
                DeviceKind::Pmem => "pmem",
            };
            self.send("DELETE", &format!("/{section}/{id}"), None, timeout)
        })?)
    }

    /// Stages a device's file, and adds the device with the configuration for the file's path in the jail.
    fn plug_file(
        &self,
        section: &str,
        file: (&str, &Path, DriveKind),
        config: impl FnOnce(&str) -> Value,
        options: &CopyOptions<'_>,
        timeout: Duration,
    ) -> Result<Receipt> {
        let staged = StagedFile::new(self, file, options)?;
        let body = config(&staged.path());
        let path = format!("/{section}/{}", file.0);
        staged.announce(self.send("PUT", &path, Some(&body), timeout))
    }

    /// Calls `change` unless the VM has no PCI bus, or a Firecracker that is too old.
    fn plug<T>(
        &self,
        verb: &'static str,
        timeout: Duration,
        change: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let checked = || {
            let operation = "change the devices of the running VM";
            self.refuse_ended(operation)?;
            if !self.record.spec.firecracker.enable_pci {
                return Err(Error::new(ErrorKind::Unsupported, operation)
                    .because("the VM was started without PCI")
                    .hinted("Start the VM with `FirecrackerOptions::enable_pci`."));
            }
            self.connect_within(timeout)?.require("hotplug")?;
            change()
        };
        trace::verb(verb, self.vm_id(), || {
            checked().map_err(|failure| host_check::explain(Verb::Prepare, failure))
        })
    }
}

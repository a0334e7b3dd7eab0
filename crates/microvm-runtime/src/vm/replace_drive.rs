//! Another file for a drive of a running VM: [`Vm::replace_drive`].

use std::time::Duration;

use jail_fs::{CopyOptions, Receipt};
use serde_json::json;

use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::spec::drive::{Drive, DriveKind};
use crate::trace;
use crate::vm::Vm;
use crate::vm::staging::StagedFile;

impl Vm {
    /// Stages the file of `drive` into the running jail, and has the drive of the same name continue on the new file
    /// (`PATCH /drives/<name>`). Firecracker has `timeout` to answer.
    ///
    /// The file is staged by the rules for a hostile jail, under a fresh name (the receipt's). The old file stays in the
    /// jail until the teardown. A [`rate_limiter`](Drive::rate_limiter) of `drive` is set too; the other options stay as
    /// they are. The guest must read the drive anew.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for a persistent drive and a vhost-user drive;
    /// [`InvalidInput`](ErrorKind::InvalidInput) if a read-only drive is to become writable, or the other way round;
    /// [`Api`](ErrorKind::Api) with Firecracker's reason, after which the new file is removed;
    /// [`Timeout`](ErrorKind::Timeout), after which the drive may be on either file; [`Identity`](ErrorKind::Identity) if the VM has ended; those of staging.
    ///
    /// # Privileges
    /// Root, as for [`Plan::prepare`](crate::Plan::prepare).
    pub fn replace_drive(
        &self,
        drive: &Drive,
        options: &CopyOptions<'_>,
        timeout: Duration,
    ) -> VmRuntimeResult<Receipt> {
        Ok(trace::verb("replace_drive", self.vm_id(), || {
            self.put_new_file(drive, options, timeout)
                .map_err(|failure| host_check::explain(Verb::Prepare, failure))
        })?)
    }

    fn put_new_file(
        &self,
        drive: &Drive,
        options: &CopyOptions<'_>,
        timeout: Duration,
    ) -> Result<Receipt> {
        let id = drive.name();
        let operation = format!("replace the drive {id:?}");
        self.refuse_ended(&operation)?;
        drive.config(drive.is_root_device())?.check()?;
        if drive.kind() == DriveKind::VhostUser {
            return Err(Error::new(ErrorKind::Unsupported, operation)
                .because("Firecracker keeps the socket of a vhost-user drive")
                .hinted("Let the backend change the drive."));
        }
        let known = self.record.spec.drives.iter().find(|known| known.name() == id);
        if known.is_some_and(|known| known.is_read_only() != drive.is_read_only()) {
            return Err(Error::invalid(operation, "one of old and new file is read-only")
                .hinted("Firecracker keeps the access of a drive."));
        }
        let staged = StagedFile::new(self, (id, drive.source(), drive.kind()), options)?;
        let mut body = json!({ "drive_id": id, "path_on_host": staged.path() });
        if let Some(limiter) = drive.limiter() {
            body["rate_limiter"] = json!(limiter);
        }
        staged.announce(self.send("PATCH", &format!("/drives/{id}"), Some(&body), timeout))
    }
}

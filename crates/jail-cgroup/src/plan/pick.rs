//! The choice of a version.

use crate::plan::check;
use crate::{CgroupVersion, Error, ErrorKind, Host, Limits, Result};

impl Host {
    /// Chooses the version for `limits`: `preferred` if it can do all of them, else the other version.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for limits that are invalid on every host;
    /// [`Unsupported`](ErrorKind::Unsupported), with the reasons of both versions, if neither can do all of them.
    pub fn pick(&self, preferred: CgroupVersion, limits: &Limits) -> Result<CgroupVersion> {
        let mut reasons = Vec::new();
        for version in [preferred, preferred.other()] {
            match check(self, version, limits) {
                Ok(()) => return Ok(version),
                Err(error) if error.kind() == ErrorKind::InvalidInput => return Err(error),
                Err(error) => {
                    let limit = error.limit().map(|limit| format!("{limit} ")).unwrap_or_default();
                    reasons.push(format!("{limit}{}", error.reason().unwrap_or("does not work")));
                }
            }
        }
        Err(Error::new(ErrorKind::Unsupported, "choose a version of control groups")
            .because(reasons.join("; "))
            .hinted("Leave the limit out, or enable the controller on this host."))
    }
}

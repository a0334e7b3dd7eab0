//! The guest's serial port.

use jail_cmd::in_jail;
use serde::{Deserialize, Serialize};

use super::rate_limiter::TokenBucket;
use crate::error::Result;

/// Settings of the guest's serial port (`PUT /serial`). Firecracker 1.14.0.
///
/// Firecracker takes these only over the API, before the start: a spec with a `Serial` is configured by requests instead
/// of a configuration file, and needs the API.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Serial {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    serial_out_path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    rate_limiter: Option<TokenBucket>,
}

impl Serial {
    /// A serial port whose output is [`Vm::console`](crate::Vm::console), without a rate limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Drops what the guest prints beyond this rate; a token is a byte. Firecracker 1.16.0.
    #[must_use]
    pub fn rate_limiter(mut self, bucket: TokenBucket) -> Self {
        self.rate_limiter = Some(bucket);
        self
    }

    /// Writes the console to `/serial.out` in the jail, and nothing to [`Vm::console`](crate::Vm::console).
    ///
    /// The file belongs to the VM and grows without bound. A [`rate_limiter`](Self::rate_limiter) slows the growth, and a
    /// write beyond the limit [`FileSize`](crate::ResourceLimit::FileSize) ends the VM.
    #[must_use]
    pub fn file_in_jail(mut self) -> Self {
        self.serial_out_path = Some(format!("/{}", in_jail::SERIAL));
        self
    }

    pub(crate) fn has_file(&self) -> bool {
        self.serial_out_path.is_some()
    }

    pub(super) fn check(&self) -> Result<()> {
        self.rate_limiter.iter().try_for_each(|bucket| bucket.check("plan the serial port", ""))
    }
}

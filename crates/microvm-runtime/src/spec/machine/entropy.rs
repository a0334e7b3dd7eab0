//! The entropy device.

use serde::{Deserialize, Serialize};

use super::rate_limiter::RateLimiter;
use crate::error::Result;

/// A virtio-rng device, which gives the guest random bytes of the host. Firecracker 1.4.0.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entropy {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    rate_limiter: Option<RateLimiter>,
}

impl Entropy {
    /// A device without a limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the bytes and requests.
    #[must_use]
    pub fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.rate_limiter = Some(limiter);
        self
    }

    pub(super) fn check(&self) -> Result<()> {
        self.rate_limiter.iter().try_for_each(|limiter| limiter.check("plan the entropy device"))
    }
}

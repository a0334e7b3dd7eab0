//! The memory balloon.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A memory balloon: the guest gives memory back to the host by inflating the balloon.
///
/// A running VM's balloon is resized with [`Api::set_balloon`](crate::Api::set_balloon).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Balloon {
    amount_mib: u32,
    deflate_on_oom: bool,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    stats_polling_interval_s: Option<u16>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    free_page_hinting: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    free_page_reporting: bool,
}

impl Balloon {
    /// A balloon of `mib` MiB at the start.
    #[must_use]
    pub fn new(mib: u32) -> Self {
        Self { amount_mib: mib, ..Self::default() }
    }

    /// Deflates the balloon if the guest runs out of memory.
    #[must_use]
    pub fn deflate_on_oom(mut self, yes: bool) -> Self {
        self.deflate_on_oom = yes;
        self
    }

    /// Lets the guest report statistics every `seconds` seconds.
    #[must_use]
    pub fn statistics(mut self, seconds: u16) -> Self {
        self.stats_polling_interval_s = Some(seconds);
        self
    }

    /// Lets the host ask the guest for free pages. Firecracker 1.14.0.
    #[must_use]
    pub fn free_page_hinting(mut self, yes: bool) -> Self {
        self.free_page_hinting = yes;
        self
    }

    /// Lets the guest report free pages on its own. Firecracker 1.14.0.
    #[must_use]
    pub fn free_page_reporting(mut self, yes: bool) -> Self {
        self.free_page_reporting = yes;
        self
    }

    pub(super) fn check(&self, memory_mib: u64) -> Result<()> {
        let operation = "plan the balloon";
        let mib = self.amount_mib;
        if u64::from(mib) > memory_mib {
            return Err(Error::invalid(
                operation,
                format!("it has {mib} MiB, and the guest has {memory_mib} MiB of memory"),
            )
            .hinted("Give the balloon at most the guest's memory."));
        }
        if self.stats_polling_interval_s == Some(0) {
            return Err(Error::invalid(operation, "it reports statistics every 0 s")
                .hinted("Leave `statistics` out for a balloon without statistics."));
        }
        Ok(())
    }
}

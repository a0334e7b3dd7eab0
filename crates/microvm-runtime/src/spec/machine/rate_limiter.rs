//! Rate limits of a drive or a network interface.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Limits on the bytes and operations of a device, each a bucket of tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct RateLimiter {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    bandwidth: Option<TokenBucket>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ops: Option<TokenBucket>,
}

/// A bucket of tokens that is filled up evenly.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct TokenBucket {
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    one_time_burst: Option<u64>,
    /// In milliseconds.
    refill_time: u64,
}

impl RateLimiter {
    /// No limit.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the bytes: a token is a byte.
    #[must_use]
    pub fn bandwidth(mut self, bucket: TokenBucket) -> Self {
        self.bandwidth = Some(bucket);
        self
    }

    /// Limits the operations: a token is one.
    #[must_use]
    pub fn ops(mut self, bucket: TokenBucket) -> Self {
        self.ops = Some(bucket);
        self
    }

    pub(crate) fn check(&self, operation: &str) -> Result<()> {
        for (name, bucket) in [("bandwidth", &self.bandwidth), ("ops", &self.ops)] {
            if let Some(bucket) = bucket {
                bucket.check(operation, name)?;
            }
        }
        Ok(())
    }
}

impl TokenBucket {
    /// A bucket of `size` tokens that is filled from empty to full in `refill_ms` milliseconds.
    #[must_use]
    pub fn new(size: u64, refill_ms: u64) -> Self {
        Self { size, one_time_burst: None, refill_time: refill_ms }
    }

    /// `tokens` more, once.
    #[must_use]
    pub fn one_time_burst(mut self, tokens: u64) -> Self {
        self.one_time_burst = Some(tokens);
        self
    }

    /// Refuses an empty bucket and a bucket that refills at once: Firecracker would treat either as no limit.
    pub(super) fn check(&self, operation: &str, name: &str) -> Result<()> {
        let Self { size, refill_time, .. } = self;
        if *size > 0 && *refill_time > 0 {
            return Ok(());
        }
        Err(Error::invalid(
            operation,
            format!("its {name} bucket has size {size} and refill time {refill_time} ms"),
        )
        .hinted("Give both 1 or more, or leave the bucket out for no limit."))
    }
}

//! A pmem device in Firecracker's configuration.

use serde::Serialize;

use super::device_id::check_id;
use super::rate_limiter::RateLimiter;
use crate::error::Result;

/// One item of the section `pmem`. Fields with Firecracker's default value are not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct PmemConfig {
    id: String,
    path_on_host: String,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    root_device: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    read_only: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiter>,
}

impl PmemConfig {
    /// Makes the configuration of the device `id` with the file at `path` in the jail.
    pub(crate) fn new(id: &str, path: &str) -> Self {
        Self {
            id: id.to_owned(),
            path_on_host: path.to_owned(),
            root_device: false,
            read_only: false,
            rate_limiter: None,
        }
    }

    /// Names the file at `path` in the jail instead.
    pub(crate) fn at(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path_on_host);
        self
    }

    pub(crate) fn root_device(mut self, yes: bool) -> Self {
        self.root_device = yes;
        self
    }

    pub(crate) fn read_only(mut self, yes: bool) -> Self {
        self.read_only = yes;
        self
    }

    pub(crate) fn rate_limiter(mut self, limiter: Option<RateLimiter>) -> Self {
        self.rate_limiter = limiter;
        self
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn is_root_device(&self) -> bool {
        self.root_device
    }

    pub(crate) fn check(&self) -> Result<()> {
        let operation = format!("plan the pmem device {:?}", self.id);
        check_id(&operation, &self.id)?;
        self.rate_limiter.iter().try_for_each(|limiter| limiter.check(&operation))
    }
}

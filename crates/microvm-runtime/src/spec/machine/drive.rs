//! A drive in Firecracker's configuration.

use serde::{Deserialize, Serialize};

use super::device_id::check_id;
use super::rate_limiter::RateLimiter;
use crate::error::{Error, Result};
use crate::text_form::text_form;

/// The effect of a guest's flush of a drive.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum CacheType {
    /// No effect: fast, but a crash of the host may lose data that the guest has flushed.
    #[default]
    Unsafe,
    /// Firecracker calls `fsync(2)` on the file.
    Writeback,
}

text_form!(CacheType, "cache type", { Unsafe => "Unsafe", Writeback => "Writeback" });

/// The system calls that Firecracker reads and writes a drive with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum IoEngine {
    /// Blocking calls.
    #[default]
    Sync,
    /// io_uring.
    Async,
}

text_form!(IoEngine, "I/O engine", { Sync => "Sync", Async => "Async" });

/// A drive in `vm.json`. Fields with Firecracker's default value are not written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct DriveConfig {
    drive_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_on_host: Option<String>,
    is_root_device: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    is_read_only: Option<bool>,
    /// The socket of a vhost-user backend, in the place of path, access, engine and limits.
    #[serde(skip_serializing_if = "Option::is_none")]
    socket: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    partuuid: Option<String>,
    #[serde(skip_serializing_if = "is_default")]
    cache_type: CacheType,
    #[serde(skip_serializing_if = "is_default")]
    io_engine: IoEngine,
    #[serde(skip_serializing_if = "Option::is_none")]
    rate_limiter: Option<RateLimiter>,
}

impl DriveConfig {
    /// Makes the configuration of the drive `id` with the file at `path` in the jail.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`](crate::ErrorKind::InvalidInput) for an id with characters other than letters, digits and
    /// `_`: the API could not address such a drive.
    pub(crate) fn new(id: &str, path: &str) -> Result<Self> {
        check_id(&operation(id), id)?;
        Ok(Self {
            drive_id: id.to_owned(),
            path_on_host: Some(path.to_owned()),
            is_root_device: false,
            is_read_only: Some(false),
            socket: None,
            partuuid: None,
            cache_type: CacheType::default(),
            io_engine: IoEngine::default(),
            rate_limiter: None,
        })
    }

    /// Names the file at `path` in the jail instead.
    pub(crate) fn at(mut self, path: &str) -> Self {
        let place = if self.socket.is_some() { &mut self.socket } else { &mut self.path_on_host };
        *place = Some(path.to_owned());
        self
    }

    /// Makes this the drive of a vhost-user backend, which listens at the socket `path` in the jail.
    pub(crate) fn vhost_user(mut self, path: &str) -> Self {
        (self.path_on_host, self.is_read_only) = (None, None);
        self.socket = Some(path.to_owned());
        self
    }

    pub(crate) fn root_device(mut self, yes: bool) -> Self {
        self.is_root_device = yes;
        self
    }

    pub(crate) fn read_only(mut self, yes: bool) -> Self {
        self.is_read_only = Some(yes);
        self
    }

    pub(crate) fn rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.rate_limiter = Some(limiter);
        self
    }

    /// The partition to boot from, if the root device has several.
    pub(crate) fn partuuid(mut self, uuid: impl Into<String>) -> Self {
        self.partuuid = Some(uuid.into());
        self
    }

    pub(crate) fn cache_type(mut self, cache: CacheType) -> Self {
        self.cache_type = cache;
        self
    }

    pub(crate) fn io_engine(mut self, engine: IoEngine) -> Self {
        self.io_engine = engine;
        self
    }

    pub(crate) fn id(&self) -> &str {
        &self.drive_id
    }

    pub(super) fn is_root_device(&self) -> bool {
        self.is_root_device
    }

    pub(crate) fn check(&self) -> Result<()> {
        if self.socket.is_some()
            && (self.rate_limiter.is_some() || self.io_engine != IoEngine::default())
        {
            return Err(Error::invalid(
                operation(&self.drive_id),
                "the backend of a vhost-user drive has no rate limiter and no engine of Firecracker's",
            )
            .hinted("Leave `rate_limiter` and `io_engine` out."));
        }
        if let Some(limiter) = &self.rate_limiter {
            limiter.check(&operation(&self.drive_id))?;
        }
        let is_bootable = |uuid: &str| {
            self.is_root_device
                && !uuid.is_empty()
                && uuid.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
        };
        if let Some(uuid) = self.partuuid.as_ref().filter(|uuid| !is_bootable(uuid)) {
            return Err(Error::invalid(
                operation(&self.drive_id),
                format!("the partition {uuid:?} cannot be booted from"),
            )
            .hinted("Give a PARTUUID of the root device: hexadecimal digits and `-`."));
        }
        Ok(())
    }
}

fn operation(id: &str) -> String {
    format!("plan the drive {id:?}")
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

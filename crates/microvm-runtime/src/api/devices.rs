//! Changing the devices of a running VM by requests.

use jail_cmd::JailerVersion;
use serde_json::{Map, Value, json};

use super::Api;
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::spec::machine::{RateLimiter, check_id, require};
use crate::text::quoted;

impl Api {
    /// Returns the release that Firecracker reports (`GET /version`). A VMM that was taken over can report anything.
    ///
    /// # Errors
    /// As [`request`](Self::request), and [`Api`](ErrorKind::Api) for a text that is no release.
    pub fn release(&self) -> VmRuntimeResult<JailerVersion> {
        Ok(self.ask_release()?)
    }

    fn ask_release(&self) -> Result<JailerVersion> {
        let response = self.send("GET", "/version", None)?;
        let version = serde_json::from_slice::<Value>(&response.body).ok();
        let version = version.as_ref().and_then(|body| body.get("firecracker_version"));
        let version = version.and_then(Value::as_str).unwrap_or_default();
        version.parse().map_err(|_| {
            Error::new(ErrorKind::Api, "ask for Firecracker's release")
                .because(format!("{} is no release", quoted(version)))
                .hinted("Another program than Firecracker answers.")
        })
    }

    /// Refuses an option that the running Firecracker lacks, by its own report: a wrong report leads to a request that
    /// Firecracker refuses.
    pub(crate) fn require(&self, field: &str) -> Result<()> {
        require(field, self.ask_release()?)
    }

    /// Sets the rate limits of a drive (`PATCH /drives/<id>`). A bucket that is left out stays.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a bad id or an empty bucket; else as [`request`](Self::request).
    pub fn limit_drive(&self, id: &str, limiter: &RateLimiter) -> VmRuntimeResult<()> {
        Ok(self.limit("drives", "drive_id", id, &[("rate_limiter", Some(limiter))])?)
    }

    /// Sets the rate limits of a network interface, for what the guest receives and sends
    /// (`PATCH /network-interfaces/<id>`). A bucket that is left out stays.
    ///
    /// # Errors
    /// As [`limit_drive`](Self::limit_drive).
    pub fn limit_network(
        &self,
        id: &str,
        receives: Option<&RateLimiter>,
        sends: Option<&RateLimiter>,
    ) -> VmRuntimeResult<()> {
        let limiters = [("rx_rate_limiter", receives), ("tx_rate_limiter", sends)];
        Ok(self.limit("network-interfaces", "iface_id", id, &limiters)?)
    }

    /// Sets the rate limits of a pmem device (`PATCH /pmem/<id>`). Firecracker 1.16.0.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) for an older Firecracker; else as [`limit_drive`](Self::limit_drive).
    pub fn limit_pmem(&self, id: &str, limiter: &RateLimiter) -> VmRuntimeResult<()> {
        self.require("pmem.rate_limiter")?;
        Ok(self.limit("pmem", "id", id, &[("rate_limiter", Some(limiter))])?)
    }

    fn limit(
        &self,
        section: &str,
        key: &str,
        id: &str,
        limiters: &[(&str, Option<&RateLimiter>)],
    ) -> Result<()> {
        let operation = format!("limit {id:?}");
        check_id(&operation, id)?;
        let mut body = Map::new();
        body.insert(key.to_owned(), json!(id));
        for (name, limiter) in limiters {
            if let Some(limiter) = limiter {
                limiter.check(&operation)?;
                body.insert((*name).to_owned(), json!(limiter));
            }
        }
        self.send("PATCH", &format!("/{section}/{id}"), Some(&Value::Object(body))).map(drop)
    }

    /// Resizes the balloon to `mib` MiB (`PATCH /balloon`). The guest's driver inflates or deflates the balloon later.
    ///
    /// # Errors
    /// [`Api`](ErrorKind::Api) for more than the guest's memory, for a VM without a balloon, and for a guest whose driver
    /// has not started; else as [`request`](Self::request).
    pub fn set_balloon(&self, mib: u32) -> VmRuntimeResult<()> {
        self.send("PATCH", "/balloon", Some(&json!({ "amount_mib": mib })))?;
        Ok(())
    }

    /// Plugs or unplugs memory until the guest has `mib` MiB of its [`MemoryHotplug`](crate::MemoryHotplug) device
    /// (`PATCH /hotplug/memory`). The guest's driver follows later. Firecracker 1.14.0.
    ///
    /// # Errors
    /// As [`set_balloon`](Self::set_balloon), and [`Unsupported`](ErrorKind::Unsupported) for an older Firecracker.
    pub fn set_hotplug_memory(&self, mib: u64) -> VmRuntimeResult<()> {
        self.require("memory-hotplug")?;
        self.send("PATCH", "/hotplug/memory", Some(&json!({ "requested_size_mib": mib })))?;
        Ok(())
    }

    /// Replaces the data of the metadata service (`PUT /mmds`), a JSON object.
    ///
    /// # Errors
    /// [`Api`](ErrorKind::Api) for data that does not fit into the store; else as [`request`](Self::request).
    pub fn set_metadata(&self, data: &Value) -> VmRuntimeResult<()> {
        if !data.is_object() {
            return Err(Error::invalid("set the metadata", "the data is no JSON object")
                .hinted("Give an object of names and values.")
                .into());
        }
        self.send("PUT", "/mmds", Some(data))?;
        Ok(())
    }
}

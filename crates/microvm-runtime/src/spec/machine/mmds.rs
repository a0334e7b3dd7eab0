//! The metadata service.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::network::NetworkInterface;
use crate::error::{Error, Result};
use crate::text_form::text_form;

/// The version of the metadata service's protocol.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MmdsVersion {
    /// Plain requests: any program of the guest reads the data.
    #[default]
    V1,
    /// Requests with a session token.
    V2,
}

text_form!(MmdsVersion, "version of the metadata service", { V1 => "V1", V2 => "V2" });

/// The microVM metadata service: a JSON document that the guest reads over HTTP, through one of its network interfaces.
///
/// A running VM's data is replaced with [`Api::set_metadata`](crate::Api::set_metadata).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Mmds {
    pub(super) config: MmdsConfig,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    data: Option<Value>,
}

/// The service's part of Firecracker's configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct MmdsConfig {
    version: MmdsVersion,
    network_interfaces: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    ipv4_address: Option<Ipv4Addr>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    imds_compat: bool,
}

impl Mmds {
    /// The service on the network interface `id`, without data.
    pub fn new(id: impl Into<String>) -> Self {
        Self::default().interface(id)
    }

    /// One more network interface with the service.
    #[must_use]
    pub fn interface(mut self, id: impl Into<String>) -> Self {
        self.config.network_interfaces.push(id.into());
        self
    }

    /// Sets the protocol; version 1 otherwise.
    #[must_use]
    pub fn version(mut self, version: MmdsVersion) -> Self {
        self.config.version = version;
        self
    }

    /// Sets the service's address, 169.254.1.0 to 169.254.254.255; 169.254.169.254 otherwise.
    #[must_use]
    pub fn address(mut self, address: Ipv4Addr) -> Self {
        self.config.ipv4_address = Some(address);
        self
    }

    /// Answers as EC2's service does: plain text, whatever the guest accepts. Firecracker 1.13.0.
    #[must_use]
    pub fn imds_compat(mut self, yes: bool) -> Self {
        self.config.imds_compat = yes;
        self
    }

    /// The data at the start, written to `/mmds.json` in the jail (`--metadata`).
    #[must_use]
    pub fn data(mut self, data: Value) -> Self {
        self.data = Some(data);
        self
    }

    /// Returns the data at the start.
    pub(crate) fn start_data(&self) -> Option<&Value> {
        self.data.as_ref()
    }

    /// Checks the service beside the guest's interfaces. `most` is the size of the store, in bytes.
    pub(super) fn check(&self, networks: &[NetworkInterface], most: u64) -> Result<()> {
        let operation = "plan the metadata service";
        let config = &self.config;
        if config.network_interfaces.is_empty() {
            return Err(Error::invalid(operation, "it has no network interface")
                .hinted("Name an interface of the guest."));
        }
        for id in &config.network_interfaces {
            if !networks.iter().any(|interface| interface.id() == id) {
                return Err(Error::invalid(
                    operation,
                    format!("the guest has no network interface {id:?}"),
                )
                .hinted("Add the interface with `Boot::network`."));
            }
        }
        let is_link_local = |address: &Ipv4Addr| matches!(address.octets(), [169, 254, 1..=254, _]);
        if let Some(address) = config.ipv4_address.filter(|address| !is_link_local(address)) {
            return Err(Error::invalid(operation, format!("{address} is no link-local address"))
                .hinted("Use 169.254.1.0 to 169.254.254.255."));
        }
        self.data.iter().try_for_each(|data| check_data(operation, data, most))
    }
}

/// Refuses data that is no object, or that does not fit into a store of `most` bytes.
fn check_data(operation: &str, data: &Value, most: u64) -> Result<()> {
    if !data.is_object() {
        return Err(Error::invalid(operation, "its data is no JSON object")
            .hinted("Give an object of names and values."));
    }
    let size = data.to_string().len();
    if u64::try_from(size).is_ok_and(|size| size <= most) {
        return Ok(());
    }
    Err(Error::invalid(operation, format!("its data has {size} bytes, and the store {most}"))
        .hinted("Raise `FirecrackerOptions::mmds_size_limit`."))
}

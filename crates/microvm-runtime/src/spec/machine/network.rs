//! A network interface of the guest.

use serde::{Deserialize, Serialize};

use super::device_id::check_id;
use super::rate_limiter::RateLimiter;
use crate::error::{Error, Result};

/// Longest name of an interface on Linux, in bytes (`IFNAMSIZ` without the final NUL).
const MAX_TAP_NAME: usize = 15;

/// Smallest MTU of IPv4, in bytes.
const MIN_MTU: u16 = 68;

/// A network interface of the guest, on a tap device of the host or of the VM's network namespace.
///
/// The tap device must exist and belong to the VM's uid or gid, unless the launch creates it
/// ([`create_tap`](Self::create_tap)).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NetworkInterface {
    iface_id: String,
    host_dev_name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    guest_mac: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    mtu: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    rx_rate_limiter: Option<RateLimiter>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    tx_rate_limiter: Option<RateLimiter>,
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    create_tap: bool,
}

impl NetworkInterface {
    /// The interface `id` (letters, digits, `_`) on the tap device `tap`.
    pub fn new(id: impl Into<String>, tap: impl Into<String>) -> Self {
        Self {
            iface_id: id.into(),
            host_dev_name: tap.into(),
            guest_mac: None,
            mtu: None,
            rx_rate_limiter: None,
            tx_rate_limiter: None,
            create_tap: false,
        }
    }

    /// The guest's MAC address, as `06:00:ac:10:00:02`.
    #[must_use]
    pub fn mac(mut self, mac: impl Into<String>) -> Self {
        self.guest_mac = Some(mac.into());
        self
    }

    /// The MTU that the guest's driver is told, 68 or more. Firecracker 1.16.0.
    #[must_use]
    pub fn mtu(mut self, bytes: u16) -> Self {
        self.mtu = Some(bytes);
        self
    }

    /// Limits what the guest receives.
    #[must_use]
    pub fn rx_rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.rx_rate_limiter = Some(limiter);
        self
    }

    /// Limits what the guest sends.
    #[must_use]
    pub fn tx_rate_limiter(mut self, limiter: RateLimiter) -> Self {
        self.tx_rate_limiter = Some(limiter);
        self
    }

    /// Has the launch create the tap device in the VM's own network namespace, for the VM's uid, and bring it up. The
    /// device goes with the namespace. Requires [`Network::Isolated`](crate::Network::Isolated) and `CAP_NET_ADMIN`.
    #[must_use]
    pub fn create_tap(mut self) -> Self {
        self.create_tap = true;
        self
    }

    pub(super) fn creates_tap(&self) -> bool {
        self.create_tap
    }

    /// The interface as Firecracker knows it.
    pub(super) fn for_firecracker(&self) -> Self {
        Self { create_tap: false, ..self.clone() }
    }

    pub(crate) fn id(&self) -> &str {
        &self.iface_id
    }

    pub(super) fn set_tap(&mut self, tap: &str) {
        tap.clone_into(&mut self.host_dev_name);
    }

    pub(super) fn tap(&self) -> &str {
        &self.host_dev_name
    }

    pub(super) fn guest_mac(&self) -> Option<String> {
        self.guest_mac.as_deref().map(str::to_ascii_lowercase)
    }

    pub(crate) fn check(&self) -> Result<()> {
        let operation = format!("plan the network interface {:?}", self.iface_id);
        check_id(&operation, &self.iface_id)?;
        let tap = &self.host_dev_name;
        let fits = (1..=MAX_TAP_NAME).contains(&tap.len());
        if !fits
            || !tap.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%".contains(&byte))
            || [".", ".."].contains(&tap.as_str())
        {
            let because = format!("{tap:?} is no name of a tap device");
            return Err(Error::invalid(operation, because).hinted(format!(
                "Use a name of 1 to {MAX_TAP_NAME} bytes without blanks, `/`, `:` and `%`."
            )));
        }
        if let Some(mac) = &self.guest_mac {
            check_mac(&operation, mac)?;
        }
        if let Some(mtu) = self.mtu.filter(|mtu| *mtu < MIN_MTU) {
            return Err(Error::invalid(operation, format!("its MTU is {mtu}"))
                .hinted(format!("Give {MIN_MTU} to {} bytes.", u16::MAX)));
        }
        for limiter in [&self.rx_rate_limiter, &self.tx_rate_limiter].into_iter().flatten() {
            limiter.check(&operation)?;
        }
        Ok(())
    }
}

fn check_mac(operation: &str, mac: &str) -> Result<()> {
    let refused = |because: String| {
        Error::invalid(operation, because).hinted("Write the address as 06:00:ac:10:00:02.")
    };
    let octets: Option<Vec<u8>> = mac
        .split(':')
        .map(|octet| {
            let two_digits = octet.len() == 2 && octet.bytes().all(|byte| byte.is_ascii_hexdigit());
            two_digits.then(|| u8::from_str_radix(octet, 16).ok()).flatten()
        })
        .collect();
    match octets.as_deref() {
        Some([first, _, _, _, _, _]) if first & 1 == 1 => {
            Err(refused(format!("the MAC address {mac} is a group's")))
        }
        Some([_, _, _, _, _, _]) => Ok(()),
        _ => Err(refused(format!("{mac:?} is no MAC address"))),
    }
}

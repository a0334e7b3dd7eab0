//! The virtual machine to boot: [`Boot`].

use serde::{Deserialize, Serialize};

use super::network::NetworkInterface;

/// The virtual machine to boot. Kernel, initial ramdisk and drives belong to the [`JailSpec`](crate::JailSpec).
///
/// The setters check nothing: [`Jailer::plan`](crate::Jailer::plan) refuses values that no Firecracker accepts. Every
/// release from 1.0.0 on understands each field of a `Boot`.
///
/// ```
/// use microvm_runtime::{Boot, NetworkInterface};
///
/// let boot = Boot::new()
///     .vcpus(2)
///     .memory_mib(512)
///     .kernel_args("console=ttyS0 reboot=k panic=1")
///     .network(NetworkInterface::new("eth0", "tap0").mac("06:00:ac:10:00:02"))
///     .vsock(3);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Boot {
    pub(super) vcpus: u8,
    pub(super) memory_mib: u64,
    pub(super) smt: bool,
    pub(super) track_dirty_pages: bool,
    pub(super) kernel_args: Option<String>,
    pub(super) networks: Vec<NetworkInterface>,
    pub(super) vsock: Option<u32>,
}

impl Default for Boot {
    fn default() -> Self {
        Self {
            vcpus: 1,
            memory_mib: 128,
            smt: false,
            track_dirty_pages: false,
            kernel_args: None,
            networks: Vec::new(),
            vsock: None,
        }
    }
}

impl Boot {
    /// One vCPU, 128 MiB, Firecracker's own kernel arguments, no network.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of vCPUs, 1 to 32.
    #[must_use]
    pub fn vcpus(mut self, count: u8) -> Self {
        self.vcpus = count;
        self
    }

    /// The guest's memory in MiB. The VMM needs a few more: see [`Limits`](crate::Limits).
    #[must_use]
    pub fn memory_mib(mut self, mib: u64) -> Self {
        self.memory_mib = mib;
        self
    }

    /// Shows pairs of vCPUs to the guest as hyper-threads of one core; the number of vCPUs must then be 1 or even.
    /// x86_64 only.
    #[must_use]
    pub fn smt(mut self, yes: bool) -> Self {
        self.smt = yes;
        self
    }

    /// Lets KVM track written pages, for differential snapshots.
    #[must_use]
    pub fn track_dirty_pages(mut self, yes: bool) -> Self {
        self.track_dirty_pages = yes;
        self
    }

    /// The kernel's command line. Firecracker adds `root=` of the root device and its virtio devices.
    #[must_use]
    pub fn kernel_args(mut self, args: impl Into<String>) -> Self {
        self.kernel_args = Some(args.into());
        self
    }

    /// One more network interface.
    #[must_use]
    pub fn network(mut self, interface: NetworkInterface) -> Self {
        self.networks.push(interface);
        self
    }

    /// A vsock device for the guest with this context id, 3 or more. On the host it is the socket `v.sock` in the jail.
    #[must_use]
    pub fn vsock(mut self, guest_cid: u32) -> Self {
        self.vsock = Some(guest_cid);
        self
    }
}

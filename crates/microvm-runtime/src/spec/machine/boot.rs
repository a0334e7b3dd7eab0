//! The virtual machine to boot: [`Boot`].

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    Balloon, CpuTemplate, Entropy, HugePages, MemoryHotplug, Mmds, NetworkInterface, Serial,
};

/// The virtual machine to boot. Kernel, initial ramdisk and drives belong to the [`JailSpec`](crate::JailSpec).
///
/// The setters check nothing: [`Jailer::plan`](crate::Jailer::plan) refuses values that no Firecracker accepts, and
/// options that the release of the VM's Firecracker lacks (`firecracker --version`). Without a release in its docs, an
/// option is in every release from 1.0.0 on.
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
    #[serde(default)]
    pub(super) cpu_template: Option<CpuTemplate>,
    #[serde(default)]
    pub(super) cpu_config: Option<Value>,
    #[serde(default)]
    pub(super) huge_pages: Option<HugePages>,
    #[serde(default)]
    pub(super) balloon: Option<Balloon>,
    #[serde(default)]
    pub(super) entropy: Option<Entropy>,
    #[serde(default)]
    pub(super) memory_hotplug: Option<MemoryHotplug>,
    #[serde(default)]
    pub(super) mmds: Option<Mmds>,
    #[serde(default)]
    pub(super) serial: Option<Serial>,
    #[serde(default)]
    pub(super) extra: Vec<Value>,
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
            cpu_template: None,
            cpu_config: None,
            huge_pages: None,
            balloon: None,
            entropy: None,
            memory_hotplug: None,
            mmds: None,
            serial: None,
            extra: Vec::new(),
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

    /// One of Firecracker's CPU templates.
    #[must_use]
    pub fn cpu_template(mut self, template: CpuTemplate) -> Self {
        self.cpu_template = Some(template);
        self
    }

    /// A CPU template of the caller's own, as Firecracker's `cpu-config` describes one. Firecracker 1.4.0.
    ///
    /// The template is written to `/cpu-config.json` in the jail. `kvm_capabilities` and `vcpu_features` need 1.5.0.
    #[must_use]
    pub fn cpu_config(mut self, template: Value) -> Self {
        self.cpu_config = Some(template);
        self
    }

    /// Backs the guest's memory with huge pages of the host. Firecracker 1.7.0.
    #[must_use]
    pub fn huge_pages(mut self, pages: HugePages) -> Self {
        self.huge_pages = Some(pages);
        self
    }

    /// A memory balloon.
    #[must_use]
    pub fn balloon(mut self, balloon: Balloon) -> Self {
        self.balloon = Some(balloon);
        self
    }

    /// An entropy device. Firecracker 1.4.0.
    #[must_use]
    pub fn entropy(mut self, entropy: Entropy) -> Self {
        self.entropy = Some(entropy);
        self
    }

    /// Memory to plug into the running guest. Firecracker 1.14.0.
    #[must_use]
    pub fn memory_hotplug(mut self, memory: MemoryHotplug) -> Self {
        self.memory_hotplug = Some(memory);
        self
    }

    /// The metadata service.
    #[must_use]
    pub fn mmds(mut self, mmds: Mmds) -> Self {
        self.mmds = Some(mmds);
        self
    }

    /// Settings of the guest's serial port. Firecracker 1.14.0.
    #[must_use]
    pub fn serial(mut self, serial: Serial) -> Self {
        self.serial = Some(serial);
        self
    }

    /// Merges a JSON object into Firecracker's configuration, for keys that no method here sets.
    ///
    /// Objects are merged key by key; the drives, network interfaces and pmem devices of lists are merged by their id. A
    /// key with two values is an error of [`Jailer::plan`](crate::Jailer::plan), in two calls of `extra` too. The values
    /// are Firecracker's to check.
    ///
    /// ```
    /// use microvm_runtime::Boot;
    /// use serde_json::json;
    ///
    /// let boot = Boot::new().extra(json!({ "machine-config": { "field_of_release_2": true } }));
    /// ```
    #[must_use]
    pub fn extra(mut self, config: Value) -> Self {
        self.extra.push(config);
        self
    }

    /// Returns the guest's memory in MiB, without the memory that may be plugged.
    pub(crate) fn memory_mib_at_start(&self) -> u64 {
        self.memory_mib
    }

    /// Returns true if KVM tracks written pages.
    pub(crate) fn tracks_dirty_pages(&self) -> bool {
        self.track_dirty_pages
    }

    /// The same machine, with the network interface `id` on the tap device `tap`.
    pub(crate) fn with_tap(mut self, id: &str, tap: &str) -> Self {
        for interface in self.networks.iter_mut().filter(|interface| interface.id() == id) {
            interface.set_tap(tap);
        }
        self
    }

    /// Returns the guest's memory in MiB, with the memory that may be plugged.
    pub(crate) fn most_memory_mib(&self) -> u64 {
        let plugged = self.memory_hotplug.as_ref().map_or(0, MemoryHotplug::total_mib);
        self.memory_mib.saturating_add(plugged)
    }

    /// Returns the size of the guest's memory or of the memory that may be plugged, in MiB: the larger one.
    pub(crate) fn largest_memory_mib(&self) -> u64 {
        let plugged = self.memory_hotplug.as_ref().map_or(0, MemoryHotplug::total_mib);
        self.memory_mib.max(plugged)
    }

    /// Returns true if huge pages back the guest's memory.
    pub(crate) fn has_huge_pages(&self) -> bool {
        self.huge_pages.is_some()
    }

    /// Returns the tap devices that a launch creates.
    pub(crate) fn new_taps(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().filter(|it| it.creates_tap()).map(NetworkInterface::tap)
    }

    /// Returns true if the machine has a vsock device.
    pub(crate) fn has_vsock(&self) -> bool {
        self.vsock.is_some()
    }

    /// Returns the tap devices that must exist before a launch.
    pub(crate) fn existing_taps(&self) -> impl Iterator<Item = &str> {
        self.networks.iter().filter(|it| !it.creates_tap()).map(NetworkInterface::tap)
    }

    /// Returns true if Firecracker is configured by requests to the API before the start.
    pub(crate) fn needs_requests(&self) -> bool {
        self.serial.is_some()
    }

    /// Returns true if the guest's serial port writes to a file in the jail.
    pub(crate) fn serial_file(&self) -> bool {
        self.serial.as_ref().is_some_and(Serial::has_file)
    }

    /// Returns the data of the metadata service at the start.
    pub(crate) fn metadata(&self) -> Option<&Value> {
        self.mmds.as_ref().and_then(Mmds::start_data)
    }
}

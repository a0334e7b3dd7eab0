//! Names in a jail's root that mean something, to the jailer, to Firecracker or to a launcher.

/// The guest kernel, where a launcher stages one.
pub const KERNEL: &str = "vmlinux";

/// The initial RAM disk, where a launcher stages one.
pub const INITRD: &str = "initrd";

/// The API socket that a launcher asks Firecracker to make.
pub const API_SOCKET: &str = "api.sock";

/// The VM's configuration, where a launcher writes one.
pub const VM_CONFIG: &str = "vm.json";

/// Firecracker's log, where a launcher asks for one.
pub const LOG: &str = "firecracker.log";

/// Firecracker's metrics file, if a launcher asks for one.
pub const METRICS: &str = "metrics";

/// The CPU template, if a launcher writes one.
pub const CPU_CONFIG: &str = "cpu-config.json";

/// The metadata store's data, if a launcher writes one.
pub const METADATA: &str = "mmds.json";

/// The guest's serial output, if a launcher asks for a file.
pub const SERIAL: &str = "serial.out";

/// The vsock device's socket; those of single ports are called `v.sock_<port>`.
pub const VSOCK: &str = "v.sock";

/// The guest's memory of a snapshot, where a launcher restores one.
pub const SNAPSHOT_MEMORY: &str = "snapshot.memory";

/// The state of devices and vCPUs of a snapshot, where a launcher restores one.
pub const SNAPSHOT_STATE: &str = "snapshot.vmstate";

/// The guest's memory, where a launcher has Firecracker write a snapshot.
pub const TAKEN_MEMORY: &str = "taken.memory";

/// The state of devices and vCPUs, where a launcher has Firecracker write a snapshot.
pub const TAKEN_STATE: &str = "taken.vmstate";

/// The names that [`for_boot`](crate::ArtifactName::for_boot) accepts and no drive may have.
pub const BOOT_FILES: [&str; 4] = [KERNEL, INITRD, SNAPSHOT_MEMORY, SNAPSHOT_STATE];

/// The directories the jailer makes, with mode 0700 and the jail's owner.
pub const DIRECTORIES: [&str; 3] = ["dev", "dev/net", "run"];

/// The device nodes the jailer makes; one that is already there ends the launch, but for `urandom`.
///
/// `userfaultfd` only where the host has it, from release 1.5.0 on.
pub const DEVICES: [&str; 4] = ["dev/net/tun", "dev/kvm", "dev/urandom", "dev/userfaultfd"];

/// The directory that the jailer mounts the host's root on during `pivot_root(2)`, and then
/// removes.
pub const OLD_ROOT: &str = "old_root";

/// Names in the root that neither an executable nor a drive can have. `sys` is the jailer's on
/// aarch64.
const RESERVED: [&str; 18] = [
    KERNEL,
    INITRD,
    API_SOCKET,
    VM_CONFIG,
    LOG,
    METRICS,
    CPU_CONFIG,
    METADATA,
    SERIAL,
    VSOCK,
    SNAPSHOT_MEMORY,
    SNAPSHOT_STATE,
    TAKEN_MEMORY,
    TAKEN_STATE,
    OLD_ROOT,
    "dev",
    "run",
    "sys",
];

/// Returns true if a name in the root is reserved, regardless of the exec file's name.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.strip_prefix(VSOCK).is_some_and(|port| port.starts_with('_'))
}

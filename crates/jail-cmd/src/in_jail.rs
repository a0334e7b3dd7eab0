//! Names in a jail's root that mean something, to the jailer, to Firecracker or to a launcher.

/// The guest kernel, where a launcher stages one.
pub const KERNEL: &str = "vmlinux";

/// The initial RAM disk, where a launcher stages one.
pub const INITRD: &str = "initrd";

/// The API socket, where a launcher has Firecracker make it.
pub const API_SOCKET: &str = "api.sock";

/// The VM's configuration, where a launcher writes one.
pub const VM_CONFIG: &str = "vm.json";

/// Firecracker's log, where a launcher asks for one.
pub const LOG: &str = "firecracker.log";

/// Firecracker's metrics, where a launcher asks for them.
pub const METRICS: &str = "metrics";

/// The vsock device's socket; those of single ports are called `v.sock_<port>`.
pub const VSOCK: &str = "v.sock";

/// What [`for_boot`](crate::ArtifactName::for_boot) takes and a drive may not be called.
pub const BOOT_FILES: [&str; 2] = [KERNEL, INITRD];

/// The directories the jailer makes, with mode 0700 and the jail's owner.
pub const DIRECTORIES: [&str; 3] = ["dev", "dev/net", "run"];

/// The device nodes the jailer makes; one that is already there ends the launch, but for `urandom`.
///
/// `userfaultfd` only where the host has it, from release 1.5.0 on.
pub const DEVICES: [&str; 4] = ["dev/net/tun", "dev/kvm", "dev/urandom", "dev/userfaultfd"];

/// Where the jailer puts the host's root for the moment of `pivot_root(2)`; it removes the
/// directory.
pub const OLD_ROOT: &str = "old_root";

/// Names in the root that neither an executable nor a drive can have. `sys` is the jailer's on
/// aarch64.
const RESERVED: [&str; 11] =
    [KERNEL, INITRD, API_SOCKET, VM_CONFIG, LOG, METRICS, VSOCK, OLD_ROOT, "dev", "run", "sys"];

/// Whether a name in the root already means something, whatever the exec file is called.
pub(crate) fn is_reserved(name: &str) -> bool {
    RESERVED.contains(&name) || name.strip_prefix(VSOCK).is_some_and(|port| port.starts_with('_'))
}

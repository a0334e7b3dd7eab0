//! The meaning of the last output of the jailer and of Firecracker.

use std::fmt;

/// The reason for an early death, if the last output is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Diagnosis {
    /// The output is not known.
    Unknown,
    /// The jailer refused an argument.
    RefusedArgument,
    /// A device node of the jailer already existed.
    NodeExists,
    /// A device node could not be made.
    NodeRefused,
    /// The pid file of an earlier run was there.
    PidFileExists,
    /// The exec copy is being executed: a VM of this id runs.
    StillRunning,
    /// A link was in the exec copy's place.
    LinkedExecCopy,
    /// The network namespace could not be joined.
    NetworkNamespace,
    /// The requested hierarchy or controller is missing.
    CgroupMissing,
    /// A control group file could not be written or joined.
    CgroupRefused,
    /// A resource limit ended the process.
    ResourceLimit,
    /// The exec file could not be executed in the jail.
    Exec,
    /// The API socket of an earlier run was there.
    SocketExists,
    /// `/dev/kvm` could not be used.
    Kvm,
    /// The configuration file was refused.
    Config,
    /// The kernel or the initial ramdisk could not be used.
    Kernel,
    /// A drive could not be used.
    Drive,
    /// The tap device could not be used.
    Tap,
    /// The seccomp filter refused a system call.
    Seccomp,
    /// There was not enough memory.
    Memory,
    /// The kernel does not fit into the guest's memory, or the kernel file is truncated.
    GuestMemory,
    /// A filesystem or a quota is full.
    NoSpace,
    /// A privilege is missing.
    Privilege,
    /// The process was killed.
    Killed,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "unknown",
            Self::RefusedArgument => "refused argument",
            Self::NodeExists => "node exists",
            Self::NodeRefused => "node refused",
            Self::PidFileExists => "pid file exists",
            Self::StillRunning => "still running",
            Self::LinkedExecCopy => "linked exec copy",
            Self::NetworkNamespace => "network namespace",
            Self::CgroupMissing => "cgroup missing",
            Self::CgroupRefused => "cgroup refused",
            Self::ResourceLimit => "resource limit",
            Self::Exec => "exec failed",
            Self::SocketExists => "socket exists",
            Self::Kvm => "KVM",
            Self::Config => "configuration",
            Self::Kernel => "kernel",
            Self::Drive => "drive",
            Self::Tap => "tap device",
            Self::Seccomp => "seccomp filter",
            Self::Memory => "out of memory",
            Self::GuestMemory => "guest's memory too small",
            Self::NoSpace => "no space",
            Self::Privilege => "privilege",
            Self::Killed => "killed",
        })
    }
}

impl Diagnosis {
    /// Returns the remedy.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Unknown => return None,
            Self::RefusedArgument => {
                "an argument was refused: is this a release that the crate knows?"
            }
            Self::NodeExists => {
                "leave /dev to the jailer: it starts in no jail that has its device nodes"
            }
            Self::NodeRefused => "run as root with CAP_MKNOD",
            Self::PidFileExists => "prepare the jail anew: it has the pid file of an earlier run",
            Self::StillRunning => "a VM of this id still runs: shut it down first",
            Self::LinkedExecCopy => {
                "prepare the jail anew: a link is where the exec file is copied to"
            }
            Self::NetworkNamespace => "is the network namespace still there? see `ip netns list`",
            Self::CgroupMissing => {
                "this host lacks that hierarchy or controller: ask for the other cgroup version"
            }
            Self::CgroupRefused => {
                "the kernel refused the value, or the group's parent has processes of its own"
            }
            Self::ResourceLimit => "raise the resource limit: the jailer itself runs under it",
            Self::Exec => "use a static executable, on a filesystem that is not mounted noexec",
            Self::SocketExists => "prepare the jail anew: it has the API socket of an earlier run",
            Self::Kvm => "does the host have /dev/kvm, and is the chroot base not mounted nodev?",
            Self::Config => {
                "does this release of Firecracker know every field of the VM's configuration?"
            }
            Self::Kernel => "use an uncompressed ELF kernel, `vmlinux`, that the VM's uid may read",
            Self::Drive => "may the VM's uid read the drive, and write it unless it is read-only?",
            Self::Tap => {
                "make the tap device in the VM's network namespace, owned by its uid, used by no other"
            }
            Self::Seccomp => {
                "use an official static build: a system call was made that its filter forbids"
            }
            Self::Memory => "allow more memory than the guest has: the VMM needs some for itself",
            Self::GuestMemory => {
                "give the guest more memory than its kernel needs, and check that the kernel's file is whole"
            }
            Self::NoSpace => "free space on the filesystem of the chroot base",
            Self::Privilege => "run as root, with no capability dropped",
            Self::Killed => "look for an out-of-memory kill in the VM's control group",
        })
    }
}

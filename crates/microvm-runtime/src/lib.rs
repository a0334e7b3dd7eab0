//! Start a Firecracker microVM inside Firecracker's official `jailer`: it works the first time, stays confined, and
//! leaves nothing behind.
//!
//! # In two minutes
//!
//! ```no_run
//! use std::time::Duration;
//! use microvm_runtime::{Boot, ByteSize, Drive, JailSpec, Jailer, JailerConfig, Limits};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let jailer = Jailer::new(JailerConfig::try_from_env()?);
//! let spec = JailSpec::new("tenant-a/vm_1", "/usr/local/bin/firecracker")
//!     .kernel("/var/lib/microvm/vmlinux")
//!     .drive(Drive::private("rootfs", "/var/lib/microvm/rootfs.ext4"))
//!     .limits(Limits::new().memory_max(ByteSize::mib(512)).cpus(1.0).pids_max(64))
//!     .boot(Boot::new().vcpus(1).memory_mib(256).kernel_args("console=ttyS0 reboot=k panic=1"));
//!
//! let vm = jailer.launch(&spec)?; // stage, spawn, wait until the API answers
//! println!("{} {:?}", vm.pid(), vm.stats()?);
//!
//! let exit = vm.shutdown(Duration::from_secs(5))?; // ask the guest, then kill
//! println!("{exit:?}");
//! jailer.remove(spec.vm_id())?; // jail, control group, lease of a uid
//! # Ok(())
//! # }
//! ```
//!
//! # One way through
//!
//! [`JailSpec`] describes a VM, [`JailerConfig`] the place of jails. Both make a [`Plan`], which can be printed and
//! serialised and changes nothing. [`Plan::prepare`] stages the files and returns a [`Prepared`] jail with a receipt.
//! [`Prepared::launch`] starts the VM and returns a ready [`Vm`], or an error with the reason. [`Vm::shutdown`] ends
//! the VM, and [`Jailer::remove`] removes the jail. [`Jailer::launch`] plans, prepares and launches in one call.
//!
//! Every step is idempotent, and another process can continue after a crash: [`Jailer::list`] lists the jails,
//! [`Jailer::adopt`] adopts a running VM, [`Jailer::sweep`] removes the remains of a killed launcher.
//!
//! # Privileges
//!
//! Root, or the nine capabilities that `docs/operations.md` lists by verb. [`Jailer::plan`] needs none. What is missing
//! is an error of kind [`Privilege`](ErrorKind::Privilege) that names all of it, before anything is touched.
//!
//! # What it is not
//!
//! No daemon, no network set-up (a VM has a network namespace, which the caller may fill), no image store, no other
//! jailer than Firecracker's, and no way to switch Firecracker's seccomp filter off.
//!
//! # Features
//!
//! `tracing`: each prepare, launch, shutdown, kill and removal is a span `vm` with the fields `verb` and `vm_id`, and
//! logs the result at the end.

mod api;
mod compat;
mod config;
mod deadline;
pub mod error;
#[cfg(test)]
mod fuzz;
mod host_check;
mod jail;
pub mod jailer;
mod launch;
mod plan;
mod random_name;
#[cfg(doctest)]
mod readme;
mod snapshot;
mod spec;
mod sys;
mod text;
mod text_form;
mod trace;
mod vm;
mod vmm;

// Each type of a signature has a name here. The lower crates are exported as a whole for the names that would be
// ambiguous or are rarely written, such as `jail_cgroup::Error`, the error of a `Leaf`.
pub use jail_cgroup::{
    self, ByteSize, CgroupVersion, Controller, CpuSet, EffectiveLimit, IoLimit, IoStats, Leaf,
    LeafId, LeafPlan, Limit, LimitChange, Limits, MemoryEvents, Pressure, Setting, Stall, Stats,
    Throttling,
};
pub use jail_cmd::{
    self, ArtifactName, ExecName, Feature, HostPath, JailId, JailPath, JailerVersion, Layout,
    LogLevel, ResourceLimit,
};
pub use jail_fs::{
    self, CopyOptions, Fallback, InodeId, Loan, Progress, Receipt, SourceStamp, Strategy, Timestamp,
};

pub use crate::api::{Action, Api, InstanceInfo, InstanceState, Response};
pub use crate::compat::VmJail;
pub use crate::compat::safe_vm_id;
pub use crate::config::JailerConfig;
pub use crate::error::{Error, ErrorKind, VmRuntimeError, VmRuntimeResult};
pub use crate::jail::list::{JailInfo, JailState, ListReport, SweepReport};
pub use crate::jail::prepare::{PrepareReport, Prepared};
pub use crate::jail::remove::{HostProblem, RemoveReport};
pub use crate::jailer::{DeviceNodes, Jailer};
pub use crate::plan::{Plan, PlannedArtifact, PlannedFile, Warning};
pub use crate::snapshot::{Afterwards, Cpu, Snapshot, SnapshotFile, SnapshotKind, SnapshotOptions};
pub use crate::spec::drive::{Drive, DriveKind};
pub use crate::spec::firecracker::FirecrackerOptions;
pub use crate::spec::machine::{
    Balloon, Boot, CacheType, CpuTemplate, Entropy, HugePages, IoEngine, MemoryHotplug, Mmds,
    MmdsVersion, NetworkInterface, RateLimiter, Serial, TokenBucket,
};
pub use crate::spec::pmem::Pmem;
pub use crate::spec::restore::Restore;
pub use crate::spec::{JailSpec, Network, User};
pub use crate::vm::Vm;
pub use crate::vm::exit::Exit;
pub use crate::vm::fleet::VmRemoveReport;
pub use crate::vm::hotplug::DeviceKind;
pub use crate::vm::vsock::VsockListener;
pub use crate::vmm::{
    Console, Descriptor, Diagnosis, EarlyDeath, ExitStatus, Inspection, PidNamespace, ProcessStamp,
    StreamReader,
};

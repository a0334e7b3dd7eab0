//! The command line of Firecracker's jailer, as types: ids, paths, releases and argv.
//!
//! [The jailer] starts Firecracker in a chroot, as a user of its own, in namespaces and control
//! groups. Its command line has pitfalls: with the id `-h` the jailer starts nothing and reports
//! success, a value with a second `=` is split, an argument that a release lacks fails only at the
//! start, and the ids of two tenants that differ in one character may lead to one jail. This crate
//! refuses such a value before anything is started, and the error names the value.
//!
//! # In two minutes
//!
//! ```
//! use jail_cmd::{
//!     CgroupSetting, ExecName, FirecrackerArgs, Gid, HostPath, JailId, JailerArgs,
//!     JailerVersion, Layout, ParentCgroup, Uid,
//! };
//!
//! // A VM's name can be anything; the jail's id is what every jailer takes, and no two VMs share one.
//! let id = JailId::for_vm("tenant-a/vm_1")?;
//!
//! // Where the jailer will put things. It resolves both paths, so give canonical ones.
//! let base = HostPath::new("/srv/jailer")?;
//! let exec_file = HostPath::new("/usr/bin/firecracker")?;
//! let layout = Layout::new(base.clone(), ExecName::try_from(&exec_file)?, id.clone());
//!
//! // The command line.
//! let args = JailerArgs::new(id, exec_file, Uid::new(123)?, Gid::new(100)?)
//!     .chroot_base(base)
//!     .cgroup_v2()
//!     .parent_cgroup(ParentCgroup::new("microvm.slice")?)
//!     .cgroup(CgroupSetting::new("pids.max", "64")?)
//!     .firecracker(FirecrackerArgs::new().api_sock(layout.api_socket_in_jail()));
//!
//! // Is it one this release understands?
//! let release: JailerVersion = "Jailer v1.16.1".parse()?;
//! args.check(release)?;
//!
//! let command: Vec<_> = args.to_argv().into_iter().map(|item| item.into_string().unwrap()).collect();
//! assert_eq!(command[..2], ["--id", "tenant-a-vm-1--800b589b6f8d603ea8b59f217d1e23b0"]);
//! assert_eq!(command[command.len() - 3..], ["--", "--api-sock", "/api.sock"]);
//! # Ok::<(), jail_cmd::Error>(())
//! ```
//!
//! # What is here
//!
//! - What the arguments are made of: [`JailId`], [`HostPath`], [`JailPath`], [`ExecName`], [`Uid`],
//!   [`Gid`], [`CgroupSetting`], [`ParentCgroup`], [`ResourceLimit`],
//!   [`LogLevel`], [`LogModule`].
//! - The arguments: [`JailerArgs`] and, after its `--`, [`FirecrackerArgs`].
//! - The way back: [`parse`], a strict reader of the official grammar that shares nothing with the
//!   builder, and [`RawInvocation`], its first half, for who wants to behave as the jailer does.
//! - The jail's files: [`Layout`], [`ArtifactName`] and the names [`in_jail`].
//! - What changed from release to release: [`JailerVersion`] and [`Feature`].
//!
//! # What is not
//!
//! This crate reads no file, starts no process and asks no kernel: whether a path exists, is
//! canonical or is safe is for its caller to know. `--no-seccomp` cannot be expressed. Releases
//! before 1.0.0 are not known.
//!
//! # Features
//!
//! `serde`: every type that is kept can be serialised; what is read back goes through the same
//! checks.
//!
//! [The jailer]: https://github.com/firecracker-microvm/firecracker/blob/main/docs/jailer.md

#![forbid(unsafe_code)]

mod artifact;
mod cgroup_setting;
mod cgroup_version;
mod error;
mod exec_name;
mod feature;
mod firecracker_args;
mod grammar;
mod id;
pub mod in_jail;
mod jailer_args;
mod layout;
mod limit;
mod log;
mod name;
mod parent_cgroup;
mod parse;
mod path;
mod raw;
mod text;
mod user;
mod version;

pub use artifact::ArtifactName;
pub use cgroup_setting::CgroupSetting;
pub use error::{Error, ErrorKind};
pub use exec_name::ExecName;
pub use feature::Feature;
pub use firecracker_args::FirecrackerArgs;
pub use id::JailId;
pub use jailer_args::JailerArgs;
pub use layout::{Layout, SUN_PATH_MAX};
pub use limit::ResourceLimit;
pub use log::{LogLevel, LogModule};
pub use parent_cgroup::ParentCgroup;
pub use parse::{Invocation, parse, parse_for};
pub use path::{HostPath, JailPath};
pub use raw::{RawArgs, RawInvocation};
pub use user::{Gid, Uid};
pub use version::JailerVersion;

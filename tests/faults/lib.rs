//! Fault injection: every system call of a launcher fails once, and a launcher is killed before each call.
//!
//! A [launcher] is a process that takes a VM through the verbs of the facade: plan, prepare, launch, inspect, adopt, stop,
//! remove. One run is recorded, call by call. Then, in further runs, each call fails with each plausible errno ([`calls`]),
//! and the launcher is killed before each call. After each run, [`Scene`] checks:
//!
//! - no panic and no death by a signal: the launcher succeeds, or reports an error with operation, path and cause;
//! - a launcher whose verb failed leaves nothing, and the same launcher then takes the VM through all verbs;
//! - sweep, adopt and removal by another launcher clear away the remains of a killed launcher, and the same id starts
//!   again, with and without that removal;
//! - the host outside the jail has the same bytes, owners, modes and link counts; no mount, control group, process, jail or
//!   uid lease is left.
//!
//! # Difference from strace(1)
//!
//! A tracer of this crate counts the calls and makes them fail. strace follows a launcher's threads only together with the
//! launcher's children, and counts `when=` per thread: a fault for the thread that spawns the jailer would also hit the
//! main thread. This tracer follows the launcher's threads and not the children: the kernel distinguishes clone(2) from
//! fork and vfork (`PTRACE_O_TRACECLONE`), and the jailer and the VMM run untouched. Phase, thread, call number and the
//! count of earlier calls of the same number identify a call, so that exactly one call fails.
//!
//! # Limits
//!
//! The calls of the jailer's process between its clone and its exec do not fail here; such a failure reaches the launcher as
//! a failed spawn. Errnos that describe the world (`ENOENT`, `EEXIST`, `ESRCH`) would be false; the races of jail-fs
//! produce them. A failed memory allocation ends any Rust program; only the allocation of a thread's stack fails here.

#![expect(clippy::panic, reason = "the framework fails the test it runs in, with its own words")]

pub mod calls;
mod isolated;
pub mod launcher;
mod messages;
mod report;
mod scene;
mod tracer;
mod trial;

pub use isolated::isolated;
pub use messages::Many;
pub use report::{PhaseCount, Report, Violation};
pub use scene::{Scene, Shape};
pub use tracer::{Call, Injection, Opened};
pub use trial::{Choice, OnProgress, opened, run};

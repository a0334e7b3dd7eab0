//! Every system call of a launcher fails once, and a launcher dies before each of them.
//!
//! A [launcher] is a process that takes a VM through its whole life by the facade: plan, prepare, launch, look,
//! adopt, stop, teardown. Its life is recorded once, call by call. Then, in lives of their own, each call is made to fail
//! with each errno that it may plausibly have ([`calls`]), and before each the launcher is killed. [`Scene`] says what
//! must hold after each:
//!
//! - no panic, no death by a signal; a success, or an error that names operation, path and cause;
//! - what a launcher that failed leaves is nothing, and the same launcher then leads the VM through its life;
//! - what a launcher that was killed leaves, another one's sweep, adopt and teardown clear away, and the same id starts
//!   again, with that and by turns without the teardown;
//! - the host outside the jail is byte, owner, mode and link count the same; no mount, control group, process, jail or
//!   lease of a uid is left.
//!
//! # Why not strace(1)
//!
//! Calls are counted and failed by a tracer of our own. strace follows a launcher's threads only together
//! with its children, and counts `when=` in each of them apart: a fault meant for the thread that spawns the jailer would
//! strike the main thread too. Here the launcher's threads are followed and its children are not: the kernel tells
//! clone(2) from fork and vfork (`PTRACE_O_TRACECLONE`), and the jailer and the VMM run untouched. A call is named by its
//! phase, its thread, its number and how many of that kind came before it there, so that exactly one fails.
//!
//! # What is not failed
//!
//! Between the vfork of the jailer and its exec the child's calls are the C library's: their failure arrives as that of
//! the spawn. Errnos that tell of the world (`ENOENT`, `EEXIST`, `ESRCH`) would be lies alone; they are raced for in the
//! tests of jail-fs. Memory that is not to be had ends any Rust program; only a thread's stack is refused.

#![expect(clippy::panic, reason = "the framework fails the test it runs in, with its own words")]

pub mod calls;
mod isolated;
pub mod launcher;
mod report;
mod scene;
mod told;
mod tracer;
mod trial;

pub use isolated::isolated;
pub use report::{PhaseCount, Report, Violation};
pub use scene::{Scene, Shape};
pub use tracer::{Blow, Call};
pub use trial::{Choice, OnProgress, run};

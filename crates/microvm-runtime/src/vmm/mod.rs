//! The VMM as a process: started, found, proven, watched and waited for. No file in the VMM's jail is trusted.

mod census;
mod console;
mod death;
mod diagnose;
mod diagnosis;
mod drain;
mod events;
mod failure_patterns;
#[cfg(test)]
pub(crate) mod fuzz;
mod identity;
mod inspect;
mod limits;
#[cfg(test)]
mod pid_file_race_test;
mod pidfd;
mod procfs;
mod reader;
mod ready;
mod search;
mod spawn;
mod stamp;
mod starting_jailer;
mod status;
mod streams;
mod tail;
mod vmm_process;

pub use console::Console;
pub use death::EarlyDeath;
pub use diagnosis::Diagnosis;
pub use inspect::{Descriptor, Inspection};
pub use reader::StreamReader;
pub use spawn::PidNamespace;
pub use stamp::ProcessStamp;
pub use status::ExitStatus;

pub(crate) use census::{Census, Crowd, Suspect, kill_all, uid_is_in_use, unexplained};
pub(crate) use console::read_tail;
pub(crate) use identity::{Expected, is_rooted_in};
pub(crate) use limits::{
    check as check_limits, explain as explain_limits, file_size_limit, files_hint,
};
pub(crate) use pidfd::{hold_children, kill_recorded, reap};
pub(crate) use procfs::read as read_proc_file;
pub(crate) use ready::start;
pub(crate) use search::Search;
pub(crate) use spawn::{Spawn, output};
pub(crate) use stamp::pid_namespace;
pub(crate) use streams::{Streams, stage as stage_streams};
pub(crate) use vmm_process::{Process, Running};

//! Resource limits (`setrlimit(2)`): what a new jailer gets of the launcher's, and what staging needs.

use jail_cmd::ResourceLimit;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::process::{CapabilitySet, Resource, Rlimit, getrlimit, has_capability};
use crate::sys::{self, Errno};
use crate::vmm::procfs;

/// Descriptors that the jailer allows Firecracker if nothing else was asked for.
const JAILER_FILES: u64 = 2048;

/// The largest number of descriptors that a launch, or the cleanup of a launch, has open.
const LAUNCH_FILES: usize = 64;

/// Bytes of stack. An endless one would give a process the layout of addresses that is easiest to guess.
const STACK: u64 = 8 << 20;

/// Returns the resource limits for a new jailer: number, soft and hard limit of each resource to change.
///
/// The soft limits of the launcher do not concern a VM, so each is raised to the hard limit.
pub(super) fn for_jailer() -> Vec<(u32, u64, u64)> {
    use Resource as R;
    let all = [
        R::Cpu,
        R::Fsize,
        R::Data,
        R::Stack,
        R::Core,
        R::Rss,
        R::Nproc,
        R::Nofile,
        R::Memlock,
        R::As,
        R::Locks,
        R::Sigpending,
        R::Msgqueue,
    ];
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    let limits = all.into_iter().filter_map(|resource| {
        let Rlimit { current, maximum } = getrlimit(resource);
        let (soft, hard) = match resource {
            R::Core => core_limit(maximum, may_raise_limits()),
            R::Stack => (number(maximum).min(STACK), number(maximum)),
            _ => (number(maximum), number(maximum)),
        };
        let new = (resource as u32, soft, hard);
        ((soft, hard) != (number(current), number(maximum))).then_some(new)
    });
    limits.collect()
}

/// Returns the limit of core files, which would hold the guest's memory: one byte, soft and hard.
///
/// A core file of one byte is not made. A core that goes to a program (`|` in `core_pattern`, as systemd sets it) is not
/// made if the limit is 1, and is made if it is 0 (`do_coredump()`). A hard limit of 0 can only be raised with
/// CAP_SYS_RESOURCE; without that capability the limit stays 0.
fn core_limit(hard: Option<u64>, may_raise: bool) -> (u64, u64) {
    if hard == Some(0) && !may_raise { (0, 0) } else { (1, 1) }
}

/// Returns true if this thread may raise hard limits.
fn may_raise_limits() -> bool {
    has_capability(CapabilitySet::SYS_RESOURCE)
}

/// Refuses, before anything is staged, limits of this process that the jailer or staging would run into: `largest` is
/// the size of the largest file that may be copied.
pub(crate) fn check(limits: &[ResourceLimit], largest: u64) -> Result<()> {
    let operation = "launch under the launcher's resource limits";
    let refuse = |because: String, hint: &str| {
        Err(Error::new(ErrorKind::Unsupported, operation).because(because).hinted(hint))
    };
    let files = limits.iter().rev().find_map(|limit| match limit {
        ResourceLimit::OpenFiles(count) => Some(*count),
        _ => None,
    });
    let files = files.unwrap_or(JAILER_FILES);
    let hard = getrlimit(Resource::Nofile).maximum;
    if let Some(hard) = hard.filter(|hard| *hard < files && !may_raise_limits()) {
        return refuse(
            format!("the jailer sets RLIMIT_NOFILE to {files}, and the hard limit is {hard}"),
            "Raise the hard limit of RLIMIT_NOFILE (`ulimit -Hn`), or give the spec a lower `ResourceLimit::OpenFiles`.",
        );
    }
    refuse_without_descriptors()?;
    if let Some(soft) = getrlimit(Resource::Fsize).current.filter(|soft| *soft < largest) {
        return refuse(
            format!("RLIMIT_FSIZE is {soft} bytes, and a file of {largest} bytes is to be copied"),
            "Raise RLIMIT_FSIZE (`ulimit -f`) for the launcher.",
        );
    }
    Ok(())
}

/// Adds the limit and the number that is needed to a failure for want of descriptors (`EMFILE`).
pub(crate) fn explain(failure: Error) -> Error {
    let of_descriptors = ["os error 24", "EMFILE"].iter().any(|words| failure.contains(words));
    if of_descriptors { failure.hinted(files_hint()) } else { failure }
}

/// Refuses a launch if the process has too few free descriptors for the launch and the cleanup.
///
/// Opens nothing: another launch of this process may need the free descriptors at this moment.
fn refuse_without_descriptors() -> Result<()> {
    let Some(soft) = getrlimit(Resource::Nofile).current else { return Ok(()) };
    // The highest numbers are the likeliest to be free.
    let free = (0..soft).rev().filter(|number| sys::is_free(*number)).take(LAUNCH_FILES).count();
    if free == LAUNCH_FILES {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Spawn, "open descriptors for a launch")
        .source_of(Errno::MFILE)
        .hinted(files_hint()))
}

/// Returns the limit on the size of a file that a process writes (`RLIMIT_FSIZE`, `/proc/<pid>/limits`), in bytes; `None` if
/// there is no limit.
pub(crate) fn file_size_limit(pid: u32) -> Result<Option<u64>> {
    let limits = procfs::bytes(pid, "limits")?;
    let mut lines = limits.split(|byte| *byte == b'\n');
    let line = lines.find_map(|line| line.strip_prefix(b"Max file size"));
    // The soft limit, the hard limit, the unit.
    let mut words = line.unwrap_or_default().split(u8::is_ascii_whitespace);
    Ok(words.find(|word| !word.is_empty()).and_then(procfs::number))
}

/// The hint of a failure for want of descriptors.
pub(crate) fn files_hint() -> String {
    let soft = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    let (enough, open) = enough_for_launch(soft, sys::is_free);
    format!(
        "Raise RLIMIT_NOFILE, now {soft}, to {enough} or more: {open} descriptors are open, a launch takes up to {LAUNCH_FILES}, and each VM that runs keeps 5."
    )
}

/// Returns the lowest limit of descriptors under which a launch has enough, always above `soft`, and the number of
/// open descriptors below that limit.
fn enough_for_launch(soft: u64, is_free: impl Fn(u64) -> bool) -> (u64, u64) {
    let wanted = LAUNCH_FILES as u64;
    let (mut limit, mut free) = (0, 0);
    while free < wanted {
        free += u64::from(is_free(limit));
        limit += 1;
    }
    let open = limit - free;
    // Other threads took the rest, and may take as much again.
    (if limit > soft { limit } else { soft.saturating_add(wanted) }, open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_95_neither_a_file_nor_a_program_gets_a_core() {
        assert_eq!(core_limit(None, false), (1, 1));
        assert_eq!(core_limit(Some(1 << 20), false), (1, 1));
        assert_eq!(core_limit(Some(0), true), (1, 1));
        assert_eq!(core_limit(Some(0), false), (0, 0));
        for (resource, soft, hard) in for_jailer() {
            assert!(soft <= hard);
            assert!(resource != Resource::Core as u32 || soft <= 1);
        }
    }

    #[test]
    fn the_file_size_limit_is_read() {
        let limit = getrlimit(Resource::Fsize).current;
        assert_eq!(file_size_limit(std::process::id()).unwrap(), limit);
    }

    #[test]
    fn limits_that_fit_are_no_matter() {
        check(&[ResourceLimit::OpenFiles(16)], 0).unwrap();
        let hint = files_hint();
        assert!(hint.contains("RLIMIT_NOFILE"), "{hint}");
    }

    #[test]
    fn the_named_limit_is_enough() {
        let enough = |soft, open: &[u64]| enough_for_launch(soft, |number| !open.contains(&number));
        assert_eq!(enough(20, &[0, 1, 2]), (67, 3));
        // Numbers above the limit, from before the limit was lowered, take none below.
        assert_eq!(enough(20, &[0, 1, 2, 500]), (67, 3));
        assert_eq!(enough(20, &[0, 1, 2, 30]), (68, 4));
        // Other threads had taken the rest: the number is above the limit in any case.
        for soft in [67, 81, 1024] {
            assert_eq!(enough(soft, &[0, 1, 2]), (soft + 64, 3));
        }
    }
}

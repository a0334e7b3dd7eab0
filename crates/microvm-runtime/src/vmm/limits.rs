//! Resource limits (`setrlimit(2)`): what a new jailer gets of the launcher's, and what staging needs.

use jail_cmd::ResourceLimit;
use rustix::process::{Resource, Rlimit, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::error::{ErrorKind, Failure, Result};

/// Descriptors that the jailer allows Firecracker if nothing else was asked for.
const JAILER_FILES: u64 = 2048;

/// The largest number of descriptors that a launch, or the cleanup of a launch, has open.
const LAUNCH_FILES: usize = 64;

/// Bytes of stack. An endless one would give a process the layout of addresses that is easiest to guess.
const STACK: u64 = 8 << 20;

/// Returns the resource limits for a new jailer: number, soft and hard limit of each resource to change.
///
/// The soft limits of the launcher do not concern a VM, so each is raised to the hard limit. A core file of the VMM
/// would hold the guest's memory, so core files are disabled.
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
            R::Core => (0, 0),
            R::Stack => (number(maximum).min(STACK), number(maximum)),
            _ => (number(maximum), number(maximum)),
        };
        let new = (resource as u32, soft, hard);
        ((soft, hard) != (number(current), number(maximum))).then_some(new)
    });
    limits.collect()
}

/// Refuses, before anything is staged, limits of this process that the jailer or staging would run into: `largest` is
/// the size of the largest file that may be copied.
pub(crate) fn check(limits: &[ResourceLimit], largest: u64) -> Result<()> {
    let operation = "launch under the launcher's resource limits";
    let refuse = |because: String, hint: &str| {
        Err(Failure::new(ErrorKind::Unsupported, operation).because(because).hinted(hint))
    };
    let files = limits.iter().rev().find_map(|limit| match limit {
        ResourceLimit::OpenFiles(count) => Some(*count),
        _ => None,
    });
    let files = files.unwrap_or(JAILER_FILES);
    let hard = getrlimit(Resource::Nofile).maximum;
    let may_raise =
        capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_RESOURCE));
    if let Some(hard) = hard.filter(|hard| *hard < files && !may_raise) {
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
pub(crate) fn explain(failure: Failure) -> Failure {
    let of_descriptors = ["os error 24", "EMFILE"].iter().any(|words| failure.contains(words));
    if of_descriptors { failure.hinted(files_hint()) } else { failure }
}

/// Refuses a launch if the process has too few free descriptors for the launch and the cleanup.
fn refuse_without_descriptors() -> Result<()> {
    let mut held = Vec::with_capacity(LAUNCH_FILES);
    let first = super::console::null()?;
    while held.len() < LAUNCH_FILES {
        match rustix::io::dup(&first) {
            Ok(fd) => held.push(fd),
            Err(errno) => {
                drop((held, first));
                return Err(Failure::new(ErrorKind::Spawn, "open descriptors for a launch")
                    .source_of(errno)
                    .hinted(files_hint()));
            }
        }
    }
    Ok(())
}

/// The hint of a failure for want of descriptors.
pub(super) fn files_hint() -> String {
    let soft = getrlimit(Resource::Nofile).current;
    let open = super::procfs::numbers("/proc/self/fd").map_or(0, |open| open.count());
    let soft = soft.map_or_else(|| "unlimited".to_owned(), |soft| soft.to_string());
    format!(
        "Raise RLIMIT_NOFILE, now {soft}, to {} or more: {open} descriptors are open, a launch takes up to {LAUNCH_FILES}, and each VM that runs keeps 5.",
        open + LAUNCH_FILES
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn core_dumps_are_disabled() {
        for (resource, soft, hard) in for_jailer() {
            assert!(soft <= hard);
            if resource == Resource::Core as u32 {
                assert_eq!((soft, hard), (0, 0));
            }
        }
    }

    #[test]
    fn limits_that_fit_are_no_matter() {
        check(&[ResourceLimit::OpenFiles(16)], 0).unwrap();
        let hint = files_hint();
        assert!(hint.contains("RLIMIT_NOFILE"), "{hint}");
    }
}

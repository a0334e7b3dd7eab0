//! Bounds on a launcher: memory, descriptors, time.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Growth that a launcher may have, in KiB of memory.
const MEMORY_KIB: u64 = 64 << 10;
/// Growth that a launcher may have, in descriptors.
const DESCRIPTORS: usize = 64;
/// Descriptors that are left for a verb: a launch wants 64 free before it begins, and some VMs are held meanwhile.
const FREE: usize = 96;
/// Time that a verb may take beyond the caller's deadline. A bound on hangs and not on speed: the host may be busy.
const SLACK: Duration = Duration::from_secs(30);

/// The memory that this process has at most used since [`Usage::begin`], and what it may use.
#[derive(Debug)]
pub(crate) struct Usage {
    before_kib: u64,
    descriptors: usize,
}

impl Usage {
    /// Forgets the peak of the memory so far, and allows so many descriptors more than are open: a verb that needs more
    /// fails.
    pub(crate) fn begin() -> Self {
        // Resets the peak (proc_pid_clear_refs(5)).
        fs::write("/proc/self/clear_refs", "5").expect("reset the peak of memory");
        let open = descriptors();
        let hard = getrlimit(Resource::Nofile).maximum;
        setrlimit(Resource::Nofile, Rlimit { current: Some((open + FREE) as u64), maximum: hard })
            .expect("limit the descriptors");
        Self { before_kib: peak_kib(), descriptors: open }
    }

    #[track_caller]
    pub(crate) fn assert_bounded(&self) {
        let grown = peak_kib().saturating_sub(self.before_kib);
        assert!(grown <= MEMORY_KIB, "the launcher used {grown} KiB more than before");
        let more = descriptors().saturating_sub(self.descriptors);
        assert!(more <= DESCRIPTORS, "the launcher has {more} descriptors more than before");
    }
}

fn descriptors() -> usize {
    fs::read_dir("/proc/self/fd").unwrap().count()
}

fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse().unwrap()
}

/// Calls a verb, names it on stdout before, and sees that it returned in `deadline` and a little.
#[track_caller]
pub(crate) fn within<T>(verb: &str, deadline: Duration, call: impl FnOnce() -> T) -> T {
    // What hangs is known by the last line.
    println!("> {verb}");
    let begun = Instant::now();
    let result = call();
    let took = begun.elapsed();
    assert!(took <= deadline + SLACK, "{verb} took {took:?} of {deadline:?}");
    result
}

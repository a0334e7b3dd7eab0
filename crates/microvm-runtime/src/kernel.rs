//! Calls that everything here rests on, tried before anything is touched.

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::error::{ErrorKind, Failure, Result};

/// Refuses to go on if the kernel, or a seccomp filter, refuses `openat2(2)`: whoever is refused elsewhere would be told
/// of the file, and not of the call.
pub(crate) fn check() -> Result<()> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat2(CWD, "/", flags, Mode::empty(), ResolveFlags::empty()) {
        Err(errno @ (Errno::NOSYS | Errno::PERM)) => {
            Err(Failure::new(ErrorKind::Unsupported, "open a directory")
                .because("openat2 was refused")
                .source_of(errno)
                .hinted("openat2 takes Linux 5.6, and a seccomp filter that allows it."))
        }
        // Whatever else fails says so where it matters.
        _ => Ok(()),
    }
}

//! A place where there are no other processes: a life looks through all there are, and each look is a call.

use std::ffi::OsStr;
use std::process::Command;

/// Returns a command that runs `program` in a new mount and pid namespace with a new `/proc` (unshare(1)), below a shell that
/// reaps orphans. The caller can add arguments.
pub fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    unshare.args(["--mount-proc", "--", "/bin/sh", "-c", r#""$@"; exit $?"#, "sh"]).arg(program);
    unshare
}

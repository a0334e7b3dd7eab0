//! A place where there are no other processes: a life looks through all there are, and each look is a call.

use std::ffi::OsStr;
use std::process::Command;

/// `program` with a mount and a pid namespace and a `/proc` of its own (unshare(1)), below a shell that reaps orphans.
/// Arguments can be added.
pub fn isolated(program: impl AsRef<OsStr>) -> Command {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "--propagation", "private", "--pid", "--fork", "--kill-child"]);
    unshare.args(["--mount-proc", "--", "/bin/sh", "-c", r#""$@"; exit $?"#, "sh"]).arg(program);
    unshare
}

//! Processes that a test starts.

use std::ffi::OsStr;
use std::ops::{Deref, DerefMut};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command};

/// A child process that is killed and reaped on drop.
#[derive(Debug)]
pub struct KillOnDrop(Child);

impl KillOnDrop {
    /// Starts `command`.
    ///
    /// # Panics
    /// If the command does not start. The message contains the command line.
    #[must_use]
    pub fn spawn(command: &mut Command) -> Self {
        match command.spawn() {
            Ok(child) => Self(child),
            Err(err) => panic!("start {command:?}: {err}"),
        }
    }
}

impl From<Child> for KillOnDrop {
    fn from(child: Child) -> Self {
        Self(child)
    }
}

impl Deref for KillOnDrop {
    type Target = Child;

    fn deref(&self) -> &Child {
        &self.0
    }
}

impl DerefMut for KillOnDrop {
    fn deref_mut(&mut self) -> &mut Child {
        &mut self.0
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        // `Child::kill` does nothing after a wait, because another process may have the pid by then.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

const ROLE_ENV: &str = "MICROVM_TEST_ROLE";

/// Returns a command that runs the test `test` of this binary again in a new process, with the role `role`, such as an
/// attacker or a victim. `test` is the full name, such as `races::row_4`. The test must call [`role`] first:
///
/// ```no_run
/// fn a_test() {
///     if testkit::role().as_deref() == Some("attacker") {
///         return; // after the attack
///     }
///     let mut attacker = testkit::KillOnDrop::spawn(&mut testkit::as_user(testkit::reenter("a_test", "attacker"), 4242));
///     // …
/// }
/// ```
///
/// The command works for static binaries, and in directories that the uid of the role may not enter.
#[must_use]
pub fn reenter(test: &str, role: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", test, "--include-ignored", "--nocapture", "--quiet", "--test-threads=1"])
        .env(ROLE_ENV, role)
        // The runner must not count the skips of the new process.
        .env_remove(crate::SKIPS_ENV);
    command
}

/// Returns the role of this process, set by [`reenter`].
#[must_use]
pub fn role() -> Option<String> {
    std::env::var(ROLE_ENV).ok()
}

/// Makes `command` run as `uid` with an equal gid and no supplementary groups (setgroups(2), setgid(2), setuid(2)).
#[must_use]
pub fn as_user(mut command: Command, uid: u32) -> Command {
    command.gid(uid).uid(uid);
    command
}

/// Makes a [`reenter`] command run in a new pid namespace, with a procfs of that namespace (unshare(1)).
///
/// # Panics
/// If the path of this binary cannot be read.
#[must_use]
pub fn in_pid_namespace(command: &Command) -> Command {
    let this = std::env::current_exe().expect("the path of this binary");
    let mut unshare = Command::new("unshare");
    unshare.args(["--pid", "--fork", "--mount-proc"]).arg(this).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => unshare.env(name, value),
            None => unshare.env_remove(name),
        };
    }
    unshare
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn tests_reenter_as_another_user() {
        const UID: u32 = 54_321;
        if role().as_deref() == Some("other") {
            assert_eq!(rustix::process::getuid().as_raw(), UID);
            assert_eq!(rustix::process::getgid().as_raw(), UID);
            assert!(rustix::process::getgroups().unwrap().is_empty());
            std::process::exit(42);
        }
        let other = reenter("process::tests::tests_reenter_as_another_user", "other");
        let status = as_user(other, UID).status().unwrap();
        assert_eq!(status.code(), Some(42));
    }

    #[test]
    fn dropped_children_are_dead() {
        let child = KillOnDrop::spawn(
            Command::new("/bin/sh").args(["-c", "read _"]).stdin(std::process::Stdio::piped()),
        );
        let pid = child.id();
        drop(child);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }
}

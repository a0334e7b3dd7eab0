//! Starting the jailer.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use serde::{Deserialize, Serialize};

use super::console::{Console, Kept, Opened};
use super::pidfd;
use crate::error::{ErrorKind, Failure, Result};
use crate::sys;

/// Who makes the VM's pid namespace.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum PidNamespace {
    /// The launcher: the jailer is the first process of a fresh namespace and becomes Firecracker in place. It stays our
    /// child: a pidfd without a race, a true exit status, no pid file to trust.
    #[default]
    ByLauncher,
    /// The jailer (`--new-pid-ns`): Firecracker is its child, and not ours. Its exit status takes Linux 6.15.
    ByJailer,
    /// Nobody: the VMM is in the launcher's namespace.
    Host,
}

/// How to start the jailer.
#[derive(Debug)]
pub(crate) struct Spawn {
    pub(crate) jailer_bin: PathBuf,
    pub(crate) argv: Vec<OsString>,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) daemonize: bool,
    pub(crate) console: Console,
}

/// The jailer, started.
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) kept: Kept,
}

impl Spawn {
    /// Whether the process that is started becomes the VMM itself.
    pub(super) fn becomes_vmm(&self) -> bool {
        self.pid_namespace != PidNamespace::ByJailer && !self.daemonize
    }

    /// Starts the jailer: no environment, nothing open but 0, 1 and 2, and a process group of its own, so that a Ctrl-C
    /// meant for the launcher does not reach the VM.
    pub(super) fn start(&self) -> Result<Spawned> {
        let Opened { stdout, stderr, ours } = self.console.open()?;
        let mut command = Command::new(&self.jailer_bin);
        command.args(&self.argv).env_clear().current_dir("/");
        if !self.daemonize {
            // Before 1.7 a jailer that daemonizes calls setsid() without a fork, which a group's leader may not.
            command.process_group(0);
        }
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = match self.pid_namespace {
            PidNamespace::ByLauncher => in_new_pid_namespace(&mut command),
            PidNamespace::ByJailer | PidNamespace::Host => command.spawn(),
        };
        // The child has its ends of the pipes; ours must go, or they would never end.
        drop(command);
        let child = child.map_err(|error| {
            Failure::new(ErrorKind::Spawn, "start the jailer")
                .path(&self.jailer_bin)
                .source_of(error)
        })?;
        let pid = child.id();
        // It is our child and not reaped yet: the number is its own.
        let pidfd = pidfd::open(pid)?.ok_or_else(|| {
            Failure::new(ErrorKind::Spawn, "hold the jailer").because("it is not there")
        })?;
        Ok(Spawned { pid, pidfd, kept: ours.read()? })
    }
}

/// Spawns as PID 1 of a fresh pid namespace. `unshare(2)` changes the namespace of the calling thread's children for
/// good, so it is a thread that ends right after.
fn in_new_pid_namespace(command: &mut Command) -> std::io::Result<Child> {
    std::thread::scope(|scope| {
        let spawner = std::thread::Builder::new().name("jailer-spawn".to_owned()).spawn_scoped(
            scope,
            || {
                sys::unshare_pid_namespace()?;
                command.spawn()
            },
        )?;
        spawner
            .join()
            .unwrap_or_else(|_| Err(std::io::Error::other("the spawning thread panicked")))
    })
}

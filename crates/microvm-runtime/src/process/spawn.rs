//! Starting the jailer.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

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
    pub(crate) spawner: Spawner,
    pub(crate) jailer_bin: PathBuf,
    pub(crate) argv: Vec<OsString>,
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
        self.spawner.pid_namespace != PidNamespace::ByJailer && !self.daemonize
    }

    /// Starts the jailer: no environment, nothing of ours open but 0, 1 and 2, and a process group of its own, so that a
    /// Ctrl-C meant for the launcher does not reach the VM. What others have opened in this process without `O_CLOEXEC`
    /// the jailer closes before it does anything else.
    pub(super) fn start(self) -> Result<Spawned> {
        let Opened { stdout, stderr, ours } = self.console.open()?;
        let mut command = Command::new(&self.jailer_bin);
        command.args(&self.argv).env_clear().current_dir("/");
        if !self.daemonize {
            // Before 1.7 a jailer that daemonizes calls setsid() without a fork, which a group's leader may not.
            command.process_group(0);
        }
        command.stdin(Stdio::null()).stdout(stdout).stderr(stderr);
        let child = self.spawner.spawn(command);
        let mut child = child.map_err(|error| refused(self.jailer_bin, error))?;
        let pid = child.id();
        // The jailer has begun, and does not wait for this.
        let held = hold(pid).and_then(|pidfd| Ok(Spawned { pid, pidfd, kept: ours.read()? }));
        held.inspect_err(|_| {
            // Nobody could hold it to account.
            let _ = child.kill().and_then(|()| child.wait());
        })
    }
}

/// A child that is not reaped yet: the number is its own.
fn hold(pid: u32) -> Result<OwnedFd> {
    pidfd::open(pid)?.ok_or_else(|| {
        Failure::new(ErrorKind::Spawn, "hold the jailer")
            .because("it is not there: does this process ignore SIGCHLD?")
    })
}

fn refused(jailer_bin: PathBuf, error: io::Error) -> Failure {
    let (kind, hint) = match error.kind() {
        io::ErrorKind::NotFound => (
            ErrorKind::NotFound,
            "install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`",
        ),
        io::ErrorKind::PermissionDenied => (
            ErrorKind::Privilege,
            "run as root with CAP_SYS_ADMIN; the jailer must be executable, and not on a noexec filesystem",
        ),
        _ => (
            ErrorKind::Spawn,
            "is it an executable of this machine, and are processes left to start?",
        ),
    };
    Failure::new(kind, "start the jailer").path(jailer_bin).source_of(error).hinted(hint)
}

/// Who spawns one process, in the pid namespace that is asked for. Made early, so that it is ready by then.
#[derive(Debug)]
pub(crate) struct Spawner {
    pid_namespace: PidNamespace,
    thread: io::Result<Option<NamespaceThread>>,
}

impl Spawner {
    /// What this cannot do, [`Spawn::start`] tells.
    pub(crate) fn new(pid_namespace: PidNamespace) -> Self {
        let thread = match pid_namespace {
            PidNamespace::ByLauncher => NamespaceThread::begin().map(Some),
            PidNamespace::ByJailer | PidNamespace::Host => Ok(None),
        };
        Self { pid_namespace, thread }
    }

    fn spawn(self, mut command: Command) -> io::Result<Child> {
        match self.thread? {
            Some(thread) => thread.spawn(command),
            None => command.spawn(),
        }
    }
}

/// A thread whose next child is PID 1 of a fresh pid namespace. `unshare(2)` changes the namespace of the calling
/// thread's children for good, so it is a thread of its own, which ends after that child, or with this.
#[derive(Debug)]
struct NamespaceThread {
    command: SyncSender<Command>,
    child: Receiver<io::Result<Child>>,
}

impl NamespaceThread {
    fn begin() -> io::Result<Self> {
        let (command, commands) = sync_channel::<Command>(1);
        let (children, child) = sync_channel(1);
        thread::Builder::new().name("jailer-spawn".to_owned()).spawn(move || {
            let unshared = sys::unshare_pid_namespace();
            if let Ok(mut command) = commands.recv() {
                let child = unshared.and_then(|()| command.spawn());
                // The child has its ends of the pipes; ours must go, or they would never end.
                drop(command);
                let _ = children.send(child);
            }
        })?;
        Ok(Self { command, child })
    }

    fn spawn(self, command: Command) -> io::Result<Child> {
        let gone = || io::Error::other("the spawning thread panicked");
        self.command.send(command).map_err(|_| gone())?;
        self.child.recv().map_err(|_| gone())?
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::process::status::ExitStatus;

    fn spawn(pid_namespace: PidNamespace, script: &str) -> Spawn {
        Spawn {
            spawner: Spawner::new(pid_namespace),
            jailer_bin: "/bin/sh".into(),
            argv: ["-c", script].map(OsString::from).to_vec(),
            daemonize: false,
            console: Console::default(),
        }
    }

    fn run(spawn: Spawn) -> (ExitStatus, String) {
        let Spawned { pidfd, kept, .. } = spawn.start().unwrap();
        assert!(pidfd::ended_by(pidfd.as_fd(), None).unwrap());
        (pidfd::status(pidfd.as_fd()).unwrap(), kept.last_words().0)
    }

    #[test]
    fn the_child_has_none_of_our_descriptors_and_no_environment() {
        let (ours, _other_end) = io::pipe().unwrap();
        let ours = format!("pipe:[{}]", rustix::fs::fstat(&ours).unwrap().st_ino);
        // `$$` is the child itself.
        let script = "ls -l /proc/$$/fd; echo end; pwd; echo ${HOME-none}; read line < /proc/$$/stat; echo $line; exit 3";
        let (status, said) = run(spawn(PidNamespace::Host, script));
        assert_eq!(status, ExitStatus::Exited(3), "{said}");
        let (descriptors, rest) = said.split_once("end\n").unwrap();
        for own in [" 0 -> /dev/null", " 1 -> pipe:", " 2 -> pipe:"] {
            assert!(descriptors.contains(own), "{own}: {descriptors}");
        }
        assert!(!descriptors.contains(&ours), "{ours}: {descriptors}");
        let lines: Vec<_> = rest.lines().collect();
        assert_eq!(lines[..2], ["/", "none"]);
        let stat: Vec<_> = lines[2].split(' ').collect();
        assert_eq!(stat[0], stat[4], "it leads a process group of its own");
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn in_a_namespace_of_ours_it_is_pid_1_and_its_status_is_told() {
        let (status, said) = run(spawn(PidNamespace::ByLauncher, "echo $$; exit 148"));
        assert_eq!((status, said.trim()), (ExitStatus::Exited(148), "1"));
        // The thread that changed its namespace is gone: the next child is in ours.
        let (_, said) = run(spawn(PidNamespace::Host, "echo $$"));
        assert_ne!(said.trim(), "1");
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        for (path, kind) in
            [("/nope/jailer", ErrorKind::NotFound), ("/etc/passwd", ErrorKind::Privilege)]
        {
            let bad = Spawn { jailer_bin: path.into(), ..spawn(PidNamespace::Host, "") };
            let error = bad.start().map(|_| ()).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(path) && error.hint().is_some(), "{error}");
        }
    }
}

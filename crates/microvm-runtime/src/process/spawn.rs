//! Starting the jailer.

use std::ffi::{CString, OsString};
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use jail_cgroup::Birthplace;
use jail_fs::Dir;
use rustix::fs::{Access, access};
use serde::{Deserialize, Serialize};

use super::console::{Console, null};
use super::streams::{self, Opened, Ours};
use crate::error::{ErrorKind, Failure, Result};
use crate::sys::{self, NewProcess, NotMade};

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
pub(crate) struct Spawn<'a> {
    pub(crate) jailer_bin: &'a Path,
    pub(crate) argv: Vec<OsString>,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) daemonize: bool,
    /// The control group it is born in; without one it is where its launcher is.
    pub(crate) birthplace: Option<Birthplace<'a>>,
    /// The jail's directory, which has the streams in it.
    pub(crate) jail: &'a Dir,
    pub(crate) console: &'a Console,
}

/// The jailer, started.
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) streams: Ours,
}

impl Spawn<'_> {
    /// Whether the process that is started becomes the VMM itself.
    pub(super) fn becomes_vmm(&self) -> bool {
        self.pid_namespace != PidNamespace::ByJailer && !self.daemonize
    }

    /// Starts the jailer: no environment, nothing open but 0, 1 and 2, and a process group of its own, so that a Ctrl-C meant
    /// for the launcher does not reach the VM.
    pub(super) fn start(self, root: &Dir) -> Result<Spawned> {
        let Opened { stdout, stderr, ours } = streams::open(self.jail, root, self.console)?;
        let program = found(self.jailer_bin);
        let words = [program.as_os_str()].into_iter().chain(self.argv.iter().map(AsRef::as_ref));
        let argv = words.map(|word| {
            CString::new(word.as_bytes()).map_err(|error| {
                Failure::invalid("start the jailer", "there is a NUL in its arguments")
                    .source_of(error)
            })
        });
        let argv = argv.collect::<Result<Vec<_>>>()?;
        let stdin = null()?;
        let made = sys::spawn(&NewProcess {
            argv: &argv,
            stdio: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()],
            // Before 1.7 a jailer that daemonizes calls setsid() without a fork, which a group's leader may not.
            leads_group: !self.daemonize,
            pid_namespace: self.pid_namespace == PidNamespace::ByLauncher,
            birthplace: self.birthplace.as_ref(),
        });
        let (pid, pidfd) = made.map_err(|error| refused(self.jailer_bin, error))?;
        // The child has its ends; ours go here, or the streams would never end.
        Ok(Spawned { pid, pidfd, streams: ours })
    }
}

/// The program that is meant: a bare name is looked for on the `PATH`.
fn found(jailer_bin: &Path) -> PathBuf {
    if jailer_bin.as_os_str().as_bytes().contains(&b'/') {
        return jailer_bin.to_owned();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut there = std::env::split_paths(&path).map(|dir| dir.join(jailer_bin));
    there
        .find(|program| access(program, Access::EXEC_OK).is_ok())
        .unwrap_or_else(|| jailer_bin.to_owned())
}

fn refused(jailer_bin: &Path, error: NotMade) -> Failure {
    let operation = "start the jailer";
    match error {
        NotMade::Group(error) => Failure::new(ErrorKind::Cgroup, operation)
            .because("it cannot be born in the VM's control group")
            .source_of(error)
            .hinted("did somebody else remove it, or put groups below it?"),
        NotMade::Process(error) => {
            let (kind, hint) = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    (ErrorKind::Privilege, "run as root with CAP_SYS_ADMIN")
                }
                _ => (
                    ErrorKind::Spawn,
                    "are processes, memory and descriptors left? It takes Linux 5.7",
                ),
            };
            Failure::new(kind, operation).source_of(error).hinted(hint)
        }
        NotMade::Program(error) => {
            let (kind, hint) = match error.kind() {
                io::ErrorKind::NotFound => (
                    ErrorKind::NotFound,
                    "install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`",
                ),
                io::ErrorKind::PermissionDenied => (
                    ErrorKind::Privilege,
                    "the jailer must be executable, and not on a noexec filesystem",
                ),
                _ => (ErrorKind::Spawn, "is it an executable of this machine?"),
            };
            Failure::new(kind, operation).path(jailer_bin).source_of(error).hinted(hint)
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::process::pidfd;
    use crate::process::status::ExitStatus;

    /// A jail's directory with its streams in it; the log too, so that it is its own root.
    fn jail() -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        let held = Dir::from_std_file(std::fs::File::open(dir.path()).unwrap());
        for name in ["console", "stderr", "firecracker.log"] {
            jail_fs::make_fifo(&held, &name.try_into().unwrap(), jail_fs::Owner::caller(), 0o600)
                .unwrap();
        }
        (dir, held)
    }

    fn spawned(bin: &str, pid_namespace: PidNamespace, script: &str) -> Result<Spawned> {
        let (_dir, jail) = jail();
        let spawn = Spawn {
            jailer_bin: Path::new(bin),
            argv: ["-c", script].map(OsString::from).to_vec(),
            pid_namespace,
            daemonize: false,
            birthplace: None,
            jail: &jail,
            console: &Console::default(),
        };
        spawn.start(&jail)
    }

    fn run_bin(bin: &str, pid_namespace: PidNamespace, script: &str) -> (ExitStatus, String) {
        let Spawned { pidfd, streams, .. } = spawned(bin, pid_namespace, script).unwrap();
        assert!(pidfd::ended_by(pidfd.as_fd(), None).unwrap());
        (pidfd::status(pidfd.as_fd()).unwrap(), streams.last_words().console)
    }

    fn run(pid_namespace: PidNamespace, script: &str) -> (ExitStatus, String) {
        run_bin("/bin/sh", pid_namespace, script)
    }

    #[test]
    fn the_child_has_none_of_our_descriptors_and_no_environment() {
        let (ours, _other_end) = io::pipe().unwrap();
        // As a careless library would: not close-on-exec.
        let _careless = rustix::io::dup(&ours).unwrap();
        let ours = format!("pipe:[{}]", rustix::fs::fstat(&ours).unwrap().st_ino);
        // `$$` is the child itself.
        let script = "ls -l /proc/$$/fd; echo end; pwd; echo ${HOME-none}; read line < /proc/$$/stat; echo $line; exit 3";
        let (status, said) = run(PidNamespace::Host, script);
        assert_eq!(status, ExitStatus::Exited(3), "{said}");
        let (descriptors, rest) = said.split_once("end\n").unwrap();
        for own in [" 0 -> /dev/null", "/console", "/stderr"] {
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
        let (status, said) = run(PidNamespace::ByLauncher, "echo $$; exit 148");
        assert_eq!((status, said.trim()), (ExitStatus::Exited(148), "1"));
        // Its namespace is its own: the next child is in ours.
        let (_, said) = run(PidNamespace::Host, "echo $$");
        assert_ne!(said.trim(), "1");
    }

    #[test]
    fn its_signals_are_those_of_a_fresh_process() {
        // This process ignores it, as every one of Rust's does.
        let (status, _) = run(PidNamespace::Host, "kill -PIPE $$; exit 3");
        assert_eq!(status, ExitStatus::Signaled(13));
        let (_, said) =
            run(PidNamespace::Host, "while read line; do echo $line; done < /proc/$$/status");
        let blocked = said.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap();
        assert_eq!(blocked.trim(), "0000000000000000");
    }

    #[test]
    fn a_bare_name_is_looked_for_on_the_path() {
        assert_eq!(run_bin("sh", PidNamespace::Host, "exit 7").0, ExitStatus::Exited(7));
        let none = spawned("no-such-jailer", PidNamespace::Host, "");
        assert_eq!(none.map(drop).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn what_cannot_be_started_is_named() {
        for (path, kind) in
            [("/nope/jailer", ErrorKind::NotFound), ("/etc/passwd", ErrorKind::Privilege)]
        {
            let error = spawned(path, PidNamespace::Host, "").map(drop).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(path) && error.hint().is_some(), "{error}");
        }
    }
}

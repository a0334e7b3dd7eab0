//! Starting the jailer.

use std::ffi::{CString, OsString};
use std::fs::File;
use std::io;
use std::io::Read as _;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jail_cgroup::SpawnInto;
use jail_fs::Dir;
use serde::{Deserialize, Serialize};

use super::console::{Console, null};
use super::limits;
use super::pidfd;
use super::streams::{self, ParentEnds, StreamEnds};
use crate::deadline::{Deadline, FAILED_LAUNCH_TIMEOUT};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::{self, Errno, NetworkNamespace, NewProcess, SpawnError, Wanted};
use crate::text_form::text_form;

/// The maker of the VM's pid namespace.
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

text_form!(PidNamespace, "maker of the pid namespace", {
    ByLauncher => "by_launcher",
    ByJailer => "by_jailer",
    Host => "host",
});

/// The parameters of the jailer's start.
#[derive(Debug)]
pub(crate) struct Spawn<'a> {
    /// Canonical.
    pub(crate) jailer_bin: &'a Path,
    pub(crate) argv: Vec<OsString>,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) network: NetworkNamespace,
    pub(crate) daemonize: bool,
    /// The control group for the new process; `None` means the launcher's.
    pub(crate) spawn_into: Option<SpawnInto<'a>>,
    /// The jail's directory, with the streams.
    pub(crate) jail: &'a Dir,
    pub(crate) console: &'a Console,
}

/// The jailer, started.
pub(super) struct Spawned {
    pub(super) pid: u32,
    pub(super) pidfd: OwnedFd,
    pub(super) streams: ParentEnds,
}

const OPERATION: &str = "start the jailer";

impl Spawn<'_> {
    /// Returns true if the started process itself becomes the VMM.
    pub(super) fn becomes_vmm(&self) -> bool {
        self.pid_namespace != PidNamespace::ByJailer && !self.daemonize
    }

    /// Starts the jailer: no environment, nothing open but 0, 1 and 2, and a session of its own, so that neither a Ctrl-C
    /// meant for the launcher nor the launcher's death reaches the VM.
    pub(super) fn start(self, root: &Dir, deadline: Deadline) -> Result<Spawned> {
        let StreamEnds { stdout, stderr, ours } = streams::open(self.jail, root, self.console)?;
        let (mut group, mut tasks, mut moves_memory) = (None, Vec::new(), false);
        if let Some(into) = self.spawn_into {
            let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned();
            group = into
                .group
                .map(own)
                .transpose()
                .map_err(|error| refused(self.jailer_bin, SpawnError::Call("dup", error)))?;
            tasks = into.tasks;
            moves_memory = into.moves_memory;
        }
        let new = NewProcess {
            argv: argv(self.jailer_bin, &self.argv)?,
            stdio: [null()?, stdout, stderr],
            // Before 1.7 a jailer that daemonizes calls setsid() without a fork, which a session's leader may not.
            leads_session: !self.daemonize,
            pid_namespace: self.pid_namespace == PidNamespace::ByLauncher,
            network: self.network,
            isolated: true,
            as_root: true,
            group,
            tasks,
            moves_memory,
            limits: limits::for_jailer(),
        };
        // The child has its ends; ours go with `new`, or the streams would never end.
        let (pid, pidfd) =
            sys::spawn(new, deadline).map_err(|error| refused(self.jailer_bin, error))?;
        Ok(Spawned { pid, pidfd, streams: ours })
    }
}

/// Runs a program with these arguments and returns the program's stdout, at most `most` bytes.
///
/// The exit status is ignored: if another thread of this process waits for every child, only that thread gets the status.
pub(crate) fn output(
    program: &Path,
    arguments: &[&str],
    most: usize,
    deadline: Deadline,
) -> Result<Vec<u8>> {
    let failed = |error: io::Error| refused(program, SpawnError::Call("pipe2", error));
    let (stdout, theirs) = sys::pipe().map_err(failed)?;
    let new = NewProcess {
        argv: argv(program, &arguments.iter().map(OsString::from).collect::<Vec<_>>())?,
        stdio: [null()?, theirs.into(), null()?],
        leads_session: true,
        pid_namespace: false,
        network: NetworkNamespace::Parents,
        isolated: false,
        as_root: false,
        group: None,
        tasks: Vec::new(),
        moves_memory: false,
        limits: limits::for_jailer(),
    };
    let (_, pidfd) = sys::spawn(new, deadline).map_err(|error| refused(program, error))?;
    let read = read_all(&stdout, &pidfd, most, deadline);
    // It has printed all it is asked for.
    pidfd::kill(pidfd.as_fd())?;
    pidfd::reap([&pidfd], Deadline::after(FAILED_LAUNCH_TIMEOUT));
    read.map_err(|error| {
        Error::new(ErrorKind::Spawn, "read what a program prints").path(program).source_of(error)
    })
}

/// Reads until the pipe or the process ends, or `most` bytes were read, or the deadline passes.
fn read_all(
    mut pipe: &File,
    process: &OwnedFd,
    most: usize,
    deadline: Deadline,
) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut piece = [0; 512];
    while bytes.len() < most && !deadline.has_passed() {
        let [readable, ended] =
            sys::poll([(&pipe, Wanted::Readable), (process, Wanted::Readable)], deadline)?;
        if readable {
            match pipe.read(&mut piece) {
                Ok(0) => break,
                Ok(length) => bytes.extend_from_slice(&piece[..length]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        } else if ended {
            // Ended, and nothing is left in the pipe: a process of its own may keep that open.
            break;
        }
    }
    bytes.truncate(most);
    Ok(bytes)
}

fn argv(program: &Path, arguments: &[OsString]) -> Result<Vec<CString>> {
    let words = [program.as_os_str()].into_iter().chain(arguments.iter().map(AsRef::as_ref));
    let argv = words.map(|word| {
        CString::new(word.as_bytes()).map_err(|error| {
            Error::invalid(OPERATION, "an argument has a NUL in it").source_of(error)
        })
    });
    argv.collect()
}

fn refused(program: &Path, error: SpawnError) -> Error {
    match error {
        SpawnError::Group(error) => Error::new(ErrorKind::Cgroup, OPERATION)
            .because("it cannot be born in the VM's control group")
            .source_of(error)
            .hinted(
                "Check that nobody removes the group or makes groups below it, and that the group is inside this process's cgroup namespace if v2 is mounted with nsdelegate.",
            ),
        SpawnError::Call(call, error) => {
            let hint = match Errno::from_io_error(&error) {
                Some(Errno::MFILE) => limits::files_hint(),
                _ if call == "SIOCSIFFLAGS" || call.starts_with("TUN") || call.ends_with("/tun") => {
                    "A tap device takes CAP_NET_ADMIN, the tun driver and a free name.".to_owned()
                }
                Some(Errno::PERM | Errno::ACCESS) => {
                    format!(
                        "Run as root with CAP_SYS_ADMIN, under no seccomp filter that refuses {call}."
                    )
                }
                Some(Errno::NOSPC) => {
                    "Raise the sysctls `user.max_*_namespaces`: the host has no namespace left."
                        .to_owned()
                }
                Some(Errno::INVAL) if call == "unshare" => {
                    "The kernel has no network namespaces: use `Network::Host`.".to_owned()
                }
                Some(Errno::NOSYS | Errno::INVAL) => {
                    format!(
                        "{call} takes Linux 5.7 with CONFIG_SECCOMP_FILTER, and a seccomp filter that allows it."
                    )
                }
                _ => "Are processes and memory left?".to_owned(),
            };
            let kind = match error.kind() {
                io::ErrorKind::PermissionDenied => ErrorKind::Privilege,
                _ => ErrorKind::Spawn,
            };
            Error::new(kind, OPERATION)
                .because(format!("{call} failed"))
                .source_of(error)
                .hinted(hint)
        }
        SpawnError::Exec(error) => {
            let (kind, hint) = match error.kind() {
                io::ErrorKind::NotFound => (
                    ErrorKind::NotFound,
                    "Install Firecracker's jailer, or name it in `JailerConfig::jailer_bin`.",
                ),
                io::ErrorKind::PermissionDenied => (
                    ErrorKind::Privilege,
                    "Make the jailer executable, and keep it on a filesystem that is not noexec.",
                ),
                // The kernel found no memory for the arguments.
                io::ErrorKind::ArgumentListTooLong | io::ErrorKind::OutOfMemory => {
                    (ErrorKind::Spawn, "Check that the host has memory left.")
                }
                _ => (ErrorKind::Spawn, "Use a jailer that is an executable of this machine."),
            };
            Error::new(kind, OPERATION).path(program).source_of(error).hinted(hint)
        }
        SpawnError::Unborn => Error::new(ErrorKind::Timeout, OPERATION)
            .because("the kernel has not set up the network namespace in time")
            .hinted("Give the spec more time with `ready_within`."),
        SpawnError::Late => Error::new(ErrorKind::Timeout, OPERATION)
            .path(program)
            .because("the new process was stopped before its exec, and was killed")
            .hinted(
                "Give the spec more time with `ready_within`, and check that its control group is not frozen.",
            ),
        SpawnError::Stuck => Error::new(ErrorKind::Timeout, OPERATION)
            .path(program)
            .because("the new process is frozen, and cannot be killed before it is thawed")
            .hinted("Thaw its control group, or a parent of the group (`freezer.state`)."),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;
    use crate::vmm::status::ExitStatus;

    const SH: &str = "/bin/sh";

    /// Returns a jail's directory with the streams and the log, so that the directory serves as the root too.
    fn jail() -> (tempfile::TempDir, Dir) {
        let dir = tempfile::tempdir().unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        let held = Dir::from_std_file(File::open(dir.path()).unwrap());
        for name in ["console", "stderr", "firecracker.log"] {
            jail_fs::make_fifo(&held, &name.try_into().unwrap(), jail_fs::Owner::caller(), 0o600)
                .unwrap();
        }
        (dir, held)
    }

    fn spawned(namespace: PidNamespace, program: &str, arguments: &[&str]) -> Result<Spawned> {
        let (_dir, jail) = jail();
        let spawn = Spawn {
            jailer_bin: Path::new(program),
            argv: arguments.iter().map(OsString::from).collect(),
            pid_namespace: namespace,
            network: NetworkNamespace::Parents,
            daemonize: false,
            spawn_into: None,
            jail: &jail,
            console: &Console::default(),
        };
        spawn.start(&jail, Deadline::NEVER)
    }

    fn run(namespace: PidNamespace, program: &str, arguments: &[&str]) -> (ExitStatus, String) {
        let Spawned { pidfd, streams, .. } = spawned(namespace, program, arguments).unwrap();
        assert!(pidfd::ended_by(pidfd.as_fd(), None).unwrap());
        (pidfd::status(pidfd.as_fd()).unwrap(), streams.remaining_output().console)
    }

    fn sh(script: &str) -> (ExitStatus, String) {
        run(PidNamespace::Host, SH, &["-c", script])
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn child_inherits_nothing() {
        let (ours, _other_end) = sys::pipe().unwrap();
        // As a careless library would: not close-on-exec.
        let _careless = rustix::io::dup(&ours).unwrap();
        let ours = format!("pipe:[{}]", rustix::fs::fstat(&ours).unwrap().st_ino);
        // `$$` is the child itself.
        let script = "ls -l /proc/$$/fd; echo end; pwd; echo ${HOME-none}; read line < /proc/$$/stat; echo $line; exit 3";
        let (status, said) = sh(script);
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
        assert_eq!((stat[0], stat[6]), (stat[5], "0"), "it leads a session without a terminal");
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn namespace_pid_1_keeps_status() {
        let (status, said) = run(PidNamespace::ByLauncher, SH, &["-c", "echo $$; exit 148"]);
        assert_eq!((status, said.trim()), (ExitStatus::Exited(148), "1"));
        // Its namespace is its own: the next child is in ours.
        assert_ne!(sh("echo $$").1.trim(), "1");
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn signals_and_umask_are_set() {
        // This process ignores SIGPIPE, as every one of Rust's does.
        let (_, status) = run(PidNamespace::Host, "/bin/cat", &["/proc/self/status"]);
        let field = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)).unwrap();
            line.trim().to_owned()
        };
        for key in ["SigBlk:", "SigIgn:", "SigCgt:", "SigPnd:"] {
            assert_eq!(field(key), "0000000000000000", "{key}");
        }
        assert_eq!(field("Umask:"), "0022");
        assert_eq!(sh("kill -PIPE $$; exit 3").0, ExitStatus::Signaled(13));
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn soft_limits_are_raised() {
        let (_, limits) = run(PidNamespace::Host, "/bin/cat", &["/proc/self/limits"]);
        let line = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(line("Max core file size"), ["1", "1"]);
        for name in ["Max file size", "Max open files", "Max cpu time", "Max processes"] {
            let [soft, hard] = line(name).try_into().unwrap();
            assert_eq!(soft, hard, "{name}");
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn row_46_namespaces_are_new() {
        for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
            for kind in ["ipc", "uts"] {
                let script = format!("readlink /proc/self/ns/{kind}");
                let (_, theirs) = run(mode, SH, &["-c", &script]);
                let ours = super::super::procfs::link(std::process::id(), &format!("ns/{kind}"));
                assert!(theirs.starts_with(kind), "{theirs}");
                assert_ne!(Path::new(theirs.trim()), ours.unwrap(), "{mode:?}");
            }
        }
    }

    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn unstartable_programs_are_named() {
        let data = tempfile::NamedTempFile::new().unwrap();
        let data = data.path().to_str().unwrap();
        for (path, kind) in [("/nope/jailer", ErrorKind::NotFound), (data, ErrorKind::Privilege)] {
            let error = spawned(PidNamespace::Host, path, &[]).map(drop).unwrap_err();
            assert_eq!(error.kind(), kind);
            assert!(error.to_string().contains(path) && error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn output_is_bounded() {
        let sh = Path::new(SH);
        let minute = || Deadline::after(std::time::Duration::from_secs(60));
        let run =
            |script: &str, most, deadline| output(sh, &["-c", script], most, deadline).unwrap();
        assert_eq!(run("echo v1; exit 7", 10, minute()), b"v1\n");
        assert_eq!(run("while :; do echo y; done", 4, minute()), b"y\ny\n");
        // A process of its own keeps the pipe open.
        assert_eq!(run("sleep 3600 & echo v1", 10, minute()), b"v1\n");
        let begun = std::time::Instant::now();
        let short = Deadline::after(std::time::Duration::from_millis(200));
        assert_eq!(run("echo v1; sleep 3600", 10, short), b"v1\n");
        assert!(begun.elapsed() < std::time::Duration::from_secs(60));
    }
}

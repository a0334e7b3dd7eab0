//! The last steps: away from the terminal, into a pid namespace, the pid file, the exec.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};

use jail_cmd::Feature;
use nix::unistd::{dup2_stderr, dup2_stdin, dup2_stdout, getpid, getsid, setsid};
use rustix::time::{ClockId, clock_gettime};

use crate::failure::Failure;
use crate::settings::Settings;
use crate::sys::{self, Fork};

/// The jailer's start times, which are passed to Firecracker.
pub(crate) struct Clock {
    wall: i64,
    cpu: i64,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { wall: microseconds(ClockId::Monotonic), cpu: microseconds(ClockId::ProcessCPUTime) }
    }
}

fn microseconds(clock: ClockId) -> i64 {
    let now = clock_gettime(clock);
    now.tv_sec * 1_000_000 + now.tv_nsec / 1_000
}

pub(crate) fn open_dev_null() -> Result<File, Failure> {
    File::open("/dev/null").map_err(|err| Failure::Open("/dev/null".into(), err))
}

/// Starts a new session with the null device on 0, 1 and 2; forks twice, so that no terminal can become the controlling
/// terminal.
pub(crate) fn daemonize(dev_null: &File, twice: bool) -> Result<(), Failure> {
    if twice && sys::fork().map_err(Failure::Daemonize)? == Fork::Parent {
        exit(0);
    }
    setsid().map_err(|err| Failure::SetSid(err.into()))?;
    if twice && sys::fork().map_err(Failure::Daemonize)? == Fork::Parent {
        exit(0);
    }
    dup2_stdin(dev_null)
        .and_then(|()| dup2_stdout(dev_null))
        .and_then(|()| dup2_stderr(dev_null))
        .map_err(|err| Failure::Dup2(err.into()))
}

/// Executes the copy, in a new pid namespace if requested: then the jailer writes the child's pid and exits 0, even if the
/// child fails.
pub(crate) fn exec(settings: &Settings, exec_file: &Path, clock: &Clock) -> Result<(), Failure> {
    if !settings.new_pid_ns {
        if settings.release.supports(Feature::PidFileAlways) {
            write_pid_file(exec_file, getpid().as_raw())?;
        }
        return Err(Failure::Exec(become_firecracker(settings, exec_file, clock)));
    }
    let leads_a_session = !settings.daemonize && getsid(None) == Ok(getpid());
    match sys::clone_into_new_pid_namespace().map_err(Failure::Clone)? {
        0 => {
            if leads_a_session && settings.release.supports(Feature::OwnSession) {
                setsid().map_err(|err| Failure::SetSid(err.into()))?;
            }
            Err(Failure::Exec(become_firecracker(settings, exec_file, clock)))
        }
        child => {
            write_pid_file(exec_file, child)?;
            exit(0)
        }
    }
}

fn write_pid_file(exec_file: &Path, pid: i32) -> Result<(), Failure> {
    let mut path = exec_file.as_os_str().to_owned();
    path.push(".pid");
    let path = PathBuf::from(path);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(&path)
        .map_err(|err| Failure::FileOpen(path.clone(), err))?;
    write!(file, "{pid}").map_err(|err| Failure::Write(path, err))
}

fn become_firecracker(settings: &Settings, exec_file: &Path, clock: &Clock) -> std::io::Error {
    let cpu = microseconds(ClockId::ProcessCPUTime);
    Command::new(exec_file)
        .env_clear()
        .args(["--id", &settings.id])
        .args(["--start-time-us", &clock.wall.to_string()])
        .args(["--start-time-cpu-us", &cpu.to_string()])
        .args(["--parent-cpu-time-us", &(cpu - clock.cpu).to_string()])
        .args(&settings.firecracker)
        .uid(settings.uid)
        .gid(settings.gid)
        .exec()
}

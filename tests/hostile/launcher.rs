//! Launchers as processes of their own, watched from outside.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::process::WaitOptions;
use testkit::KillOnDrop;

/// The longest silence of a launcher: after that, the launcher hangs in the verb that it printed last.
const SILENCE: Duration = Duration::from_secs(120);

/// The mounts that a launcher sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mounts {
    /// Those of the host.
    Host,
    /// Those of the host, but no hierarchy of control groups.
    NoControlGroups,
}

/// Runs `command` in a mount namespace of its own until the process exits.
///
/// # Errors
/// The last printed lines, if the process fails or hangs.
pub(crate) fn run(mut command: Command, mounts: Mounts) -> Result<(), String> {
    let (reader, writer) = std::io::pipe().unwrap();
    command
        .env("RUST_BACKTRACE", "0")
        .stdin(Stdio::null())
        .stdout(writer.try_clone().unwrap())
        .stderr(writer);
    let mut child = in_own_mounts(&mut command, mounts);
    drop(command);
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        let mut reader = BufReader::new(reader);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    let mut said: Vec<String> = Vec::new();
    let mut hung = false;
    loop {
        match lines.recv_timeout(SILENCE) {
            Ok(line) => said.push(line),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                hung = child.try_wait().unwrap().is_none();
                break;
            }
        }
    }
    if hung {
        let wchan = std::fs::read_to_string(format!("/proc/{}/wchan", child.id()));
        return Err(format!("hangs in {}:{}", wchan.unwrap_or_default(), last_lines(&said)));
    }
    let status = child.wait().unwrap();
    if status.success() { Ok(()) } else { Err(format!("{status}:{}", last_lines(&said))) }
}

/// Returns the last verbs of a failed launcher, and the message of its panic.
fn last_lines(said: &[String]) -> String {
    let panic = said.iter().position(|line| line.contains("panicked at")).unwrap_or(said.len());
    let words = said.iter().skip(panic).take_while(|line| !line.starts_with("note: ")).take(12);
    let verbs = said.iter().take(panic).skip(panic.saturating_sub(4));
    verbs.chain(words).fold(String::new(), |text, line| text + "\n    " + line)
}

/// The role of [`reap`].
pub(crate) const REAPER: &str = "reaper";

/// Starts `command`, reaps the orphans of its VMs as an init does, and ends as it ends.
pub(crate) fn reap(mut command: Command) {
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let launcher = command.spawn().unwrap().id();
    loop {
        let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::empty()) else { continue };
        if pid.as_raw_nonzero().get().unsigned_abs() == launcher {
            std::process::exit(status.exit_status().unwrap_or(99));
        }
    }
}

/// Starts it from a thread that has left the host's mount namespace, which is then the child's.
fn in_own_mounts(command: &mut Command, mounts: Mounts) -> KillOnDrop {
    std::thread::scope(|scope| {
        let start = move || {
            unshare(CloneFlags::CLONE_NEWNS).expect("unshare the mounts");
            let none = None::<&str>;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
                .expect("make the mounts private");
            if mounts == Mounts::NoControlGroups {
                for top in testkit::hierarchies() {
                    umount2(&top, MntFlags::MNT_DETACH).expect("unmount a hierarchy");
                }
            }
            KillOnDrop::spawn(command)
        };
        scope.spawn(start).join().expect("start the launcher")
    })
}

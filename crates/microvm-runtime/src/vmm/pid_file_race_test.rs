//! Row 23: the jail's user rewrites the pid file while the VMM is looked for.

#![expect(clippy::disallowed_methods, reason = "the test's and the attacker's own files")]

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{chown, chroot};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use jail_fs::{Dir, InodeId};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use rustix::process::{Pid, test_kill_process};
use rustix::thread::{Uid, set_thread_res_uid};

use super::identity::{Expected, is_rooted_in};
use super::search::Search;
use super::vmm_process::Process;

#[path = "../../../../tests/framework/race.rs"]
#[expect(unreachable_pub, reason = "the framework's module, and its own way to be seen")]
mod race;
use race::{Round, race};

const NAME: &str = "vmm::pid_file_race_test::row_23_race_for_the_pid_file";
const ROLE: &str = "MICROVM_TEST_ROLE";
const UID: u32 = 52_023;

/// A child of this test, killed and reaped on drop.
struct Helper(Child);

impl Drop for Helper {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Returns a command that runs this test in a child, in `role`, with the jail as working directory.
fn helper(role: &str, jail: &Path) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--exact", NAME, "--include-ignored", "--nocapture", "--quiet", "--test-threads=1"])
        .env(ROLE, role)
        .current_dir(jail)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped());
    command
}

/// Starts the helper and waits until the helper is ready.
fn start(mut command: Command) -> Helper {
    let mut child = command.spawn().unwrap();
    let mut said = BufReader::new(child.stdout.take().unwrap()).lines();
    let helper = Helper(child);
    assert!(said.any(|line| line.unwrap().ends_with("ready")), "{command:?} ended");
    helper
}

/// The VMM: the jail is its root. It ends with its parent's end of the pipe.
fn jailed() {
    chroot(".").unwrap();
    let uid = Uid::from_raw(UID);
    set_thread_res_uid(uid, uid, uid).unwrap();
    println!("ready");
    let _ = std::io::stdin().read_to_end(&mut Vec::new());
}

/// The attack of the jail's user, in an endless loop.
fn attacker() {
    assert_eq!(rustix::process::geteuid().as_raw(), UID);
    println!("ready");
    loop {
        renameat_with(CWD, "firecracker.pid", CWD, "other.pid", RenameFlags::EXCHANGE).unwrap();
    }
}

fn in_file(pid_file: &Path) -> Option<u32> {
    fs::read_to_string(pid_file).ok()?.trim().parse().ok()
}

/// The process that a descriptor means, by the kernel's word.
fn meant(process: &Process) -> u32 {
    let info = format!("/proc/self/fdinfo/{}", process.pidfd.as_raw_fd());
    let info = fs::read_to_string(info).unwrap();
    info.lines().find_map(|line| line.strip_prefix("Pid:")).unwrap().trim().parse().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_23_race_for_the_pid_file() {
    match std::env::var(ROLE).as_deref() {
        Ok("jailed") => return jailed(),
        Ok("attacker") => return attacker(),
        _ => {}
    }
    let dir = tempfile::tempdir().unwrap();
    let jail = dir.path();
    let vmm = start(helper("jailed", jail));
    let host = Helper(
        Command::new("/bin/sh").args(["-c", "read line"]).stdin(Stdio::piped()).spawn().unwrap(),
    );
    let (vmm_pid, host_pid) = (vmm.0.id(), host.0.id());
    for (name, pid) in [("firecracker.pid", vmm_pid), ("other.pid", host_pid)] {
        fs::write(jail.join(name), pid.to_string()).unwrap();
    }
    chown(jail, Some(UID), Some(UID)).unwrap();
    let mut command = helper("attacker", jail);
    let attacker = start({
        command.uid(UID).gid(UID);
        command
    });

    let root = Dir::from_std_file(File::open(jail).unwrap());
    let expected = Expected {
        uid: UID,
        gid: UID,
        root: InodeId::of(&root).unwrap(),
        exec_name: "firecracker".to_owned(),
        boots: false,
    };
    let search = Search { root: &root, expected: &expected, members: &|| Ok(Vec::new()) };
    let pid_file = jail.join("firecracker.pid");
    race(
        "row 23",
        1,
        attacker,
        || {
            let mut held = Vec::new();
            search.look(u32::MAX, &mut held, false).unwrap();
            match held.iter().map(meant).collect::<Vec<_>>().as_slice() {
                [] => Round::Won("nobody held"),
                [pid] if *pid == vmm_pid => Round::Won("VMM held"),
                _ => Round::Lost,
            }
        },
        || {
            // Checks who it is, and then kills whom the file names: 0 is the signal that only asks.
            let checked = in_file(&pid_file).is_some_and(|pid| is_rooted_in(pid, expected.root));
            if !checked {
                return Round::Won("refused");
            }
            let Some(pid) = in_file(&pid_file) else { return Round::Won("no file") };
            let number = Pid::from_raw(pid as i32).unwrap();
            match test_kill_process(number) {
                Ok(()) if pid == host_pid => Round::Lost,
                _ => Round::Won("VMM killed"),
            }
        },
    );
    drop(vmm);
    drop(host);
}

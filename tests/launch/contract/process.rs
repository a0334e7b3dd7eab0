//! The process the jailer becomes, or leaves behind.

use std::fs;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};

use super::rig::{GID, Rig, UID, held, proc};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn nothing_is_handed_on() {
    for rig in Rig::each() {
        let open = fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
        let launch = rig.launch().stub(&["--hold"]);
        let child = held(launch.command().env("SECRET", "1"));
        let pid = child.id();
        assert_eq!(proc(pid, "environ"), "", "{}", rig.name);
        let mut descriptors: Vec<_> = fs::read_dir(format!("/proc/{pid}/fd"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        descriptors.sort();
        assert_eq!(descriptors, ["0", "1", "2"], "{}", rig.name);
        // What is handed on instead.
        let args = proc(pid, "cmdline");
        let args: Vec<_> = args.split_terminator('\0').collect();
        assert_eq!(args[..4], ["/firecracker", "--id", "vm-1", "--start-time-us"], "{}", rig.name);
        assert_eq!(
            (args[5], args[7], args.len()),
            ("--start-time-cpu-us", "--parent-cpu-time-us", 10),
            "{}: {args:?}",
            rig.name
        );
        assert_eq!(args.last(), Some(&"--hold"));
        let status = proc(pid, "status");
        let ids = |name: &str| {
            status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim().to_owned()
        };
        assert_eq!(ids("Uid:"), vec![UID.to_string(); 4].join("\t"), "{}", rig.name);
        assert_eq!(ids("Gid:"), vec![GID.to_string(); 4].join("\t"), "{}", rig.name);
        assert_eq!(ids("Groups:"), "", "{}", rig.name);
        let limits = proc(pid, "limits");
        let files: Vec<_> = limits
            .lines()
            .find(|line| line.starts_with("Max open files"))
            .unwrap()
            .split_whitespace()
            .collect();
        assert_eq!(files[3..5], ["2048", "2048"], "{}", rig.name);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_detached_jailer_exits_0() {
    for rig in Rig::each() {
        let launch = rig.launch().with(&["--new-pid-ns"]);
        let outcome = launch.run();
        assert_eq!(outcome.code, Some(0), "{}: {outcome:?}", rig.name);
        assert!(
            outcome.stdout.contains("stub: --id "),
            "it is not detached from its stdout: {outcome:?}"
        );

        let launch = rig.launch().with(&["--daemonize"]);
        let outcome = launch.run();
        assert_eq!(outcome.code, Some(0), "{}: {outcome:?}", rig.name);
        assert_eq!(outcome.stdout, "", "{}", rig.name);
        let pid = eventually(|| {
            let pid = fs::read_to_string(launch.root().join("firecracker.pid")).ok()?;
            pid.parse::<u32>().ok()
        });
        // A zombie that waits for init has ended: it has no executable any more.
        eventually(|| fs::read_link(format!("/proc/{pid}/exe")).is_err().then_some(()));
    }
}

/// Polls until `seen` returns a value; for processes without an event.
fn eventually<T>(mut seen: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        if let Some(seen) = seen() {
            return seen;
        }
        assert!(Instant::now() < deadline, "it never came to pass");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn namespace_init_keeps_its_status() {
    for rig in Rig::each() {
        // A thread of its own: what it unshares, its children are in, and it cannot go back.
        let in_namespace = |body: &(dyn Fn() + Sync)| {
            std::thread::scope(|scope| {
                let thread = scope.spawn(|| {
                    unshare(CloneFlags::CLONE_NEWPID).unwrap();
                    body();
                });
                thread.join().unwrap();
            });
        };
        in_namespace(&|| rig.launch().run().assert_started(&rig.name));
        in_namespace(&|| {
            let mut child = rig.launch().hold();
            let status = proc(child.id(), "status");
            let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap();
            let pids: Vec<_> = pids.split_whitespace().collect();
            assert_eq!(pids.last(), Some(&"1"), "{}", rig.name);
            assert_eq!(
                pids.first(),
                Some(&child.id().to_string().as_str()),
                "it is our direct child"
            );
            drop(child.stdin.take());
            assert_eq!(child.wait().unwrap().code(), Some(7), "{}", rig.name);
        });
    }
}

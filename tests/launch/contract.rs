//! docs/jailer-contract.md, line by line, on the official jailer where it is installed and on the stand-in: what a
//! launcher relies on, and what keeps the stand-in honest.

mod control_groups;
mod rig;

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use jail_cmd::Feature;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use testkit::{Tmpfs, skip};

use self::rig::{GID, Outcome, Rig, UID, held, is_dynamic, proc};

/// The releases the stand-in acts, one on each side of every change.
const RELEASES: [&str; 10] =
    ["1.0.0", "1.1.4", "1.2.0", "1.5.0", "1.6.0", "1.7.0", "1.10.0", "1.13.0", "1.14.1", "1.16.1"];

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn grammar_faults_are_worded_alike() {
    let (official, acted) = Rig::older(&RELEASES);
    for rig in Rig::each().iter().chain(&official).chain(&acted) {
        for (args, message) in [
            (
                &["--bad", "x"][..],
                "Found argument 'bad' which wasn't expected, or isn't valid in this context.",
            ),
            (
                &["--id=x"],
                "Found argument 'id=x' which wasn't expected, or isn't valid in this context.",
            ),
            (&["x"], "Found argument 'x' which wasn't expected, or isn't valid in this context."),
            (&["--id", "a", "--id", "b"], "The argument 'id' was provided more than once."),
            (&["--id", "--uid"], "The argument 'id' requires a value, but none was supplied."),
            (&["--id"], "The argument 'id' requires a value, but none was supplied."),
            (&["--id", "--", "x"], "The argument 'id' requires a value, but none was supplied."),
            (&["--id", "x"], "Argument 'exec-file' required, but not found."),
            (&[], "Argument 'exec-file' required, but not found."),
        ] {
            let outcome = rig.bare(args);
            assert_eq!(outcome.code, Some(1), "{}: {args:?}: {outcome:?}", rig.name);
            let said = format!("{}{}", outcome.stdout, outcome.stderr);
            assert!(said.contains(message), "{}: {args:?}: {outcome:?}", rig.name);
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn judged_command_lines() {
    let (max, longer) = ("a".repeat(64), "a".repeat(65));
    for rig in Rig::each() {
        let name = &rig.name;
        let with_id = |id: &str| {
            let mut launch = rig.launch();
            id.clone_into(&mut launch.id);
            launch
        };
        for id in ["vm-1", "-", "-a", "é", &max] {
            with_id(id).run().assert_started((name, id));
        }
        for id in ["-h", "--help", "--version"] {
            let launch = with_id(id);
            let outcome = launch.run();
            assert_eq!(outcome.code, Some(0), "{name}: {id}: {outcome:?}");
            assert!(outcome.stdout.starts_with("Jailer v"), "{name}: {id}: {outcome:?}");
            assert_eq!(
                fs::read_dir(&launch.base).unwrap().count(),
                0,
                "{name}: {id}: something was made"
            );
        }
        for (id, message) in [
            ("", "Invalid instance ID: Invalid len (0);  the length must be between 1 and 64"),
            ("a.b", "Invalid instance ID: Invalid char (.) at position 1"),
            ("a_b", "Invalid instance ID: Invalid char (_) at position 1"),
            (
                &longer,
                "Invalid instance ID: Invalid len (65);  the length must be between 1 and 64",
            ),
            ("--", "The argument 'id' requires a value, but none was supplied."),
        ] {
            let launch = with_id(id);
            launch.run().assert_refused((name, id), message);
            assert_eq!(
                fs::read_dir(&launch.base).unwrap().count(),
                0,
                "{name}: {id}: something was made"
            );
        }
        for uid in ["0", "65534"] {
            let mut launch = rig.launch();
            uid.clone_into(&mut launch.uid);
            launch.run().assert_started((name, uid));
        }
        for bad in ["4294967296", "-1", "x", ""] {
            let (mut uid, mut gid) = (rig.launch(), rig.launch());
            bad.clone_into(&mut uid.uid);
            bad.clone_into(&mut gid.gid);
            uid.run().assert_refused((name, "uid", bad), &format!("Invalid uid: {bad}"));
            gid.run().assert_refused((name, "gid", bad), &format!("Invalid gid: {bad}"));
        }
        // What setuid(2) will not take is found out when everything else is done.
        let mut minus_one = rig.launch();
        "4294967295".clone_into(&mut minus_one.uid);
        minus_one
            .run()
            .assert_refused((name, "uid -1"), "Failed to exec into Firecracker: Invalid argument");
        assert!(minus_one.root().join("firecracker.pid").exists(), "{name}: the debris is gone");

        let with = |items: &[&str]| rig.launch().with(items).run();
        with(&["--cgroup-version", "3"]).assert_started((name, "version 3"));
        with(&["--parent-cgroup", ""]).assert_started((name, "empty parent"));
        with(&["--resource-limit", "no-file=64", "--resource-limit", "no-file=128"])
            .assert_started((name, "two limits"));
        for (items, message) in [
            (&["--cgroup-version", "x"][..], "x is an invalid cgroup version specifier"),
            (&["--cgroup-version", "256"], "256 is an invalid cgroup version specifier"),
            (&["--parent-cgroup", "../up"], "Parent cgroup path is invalid"),
            (&["--parent-cgroup", "/abs"], "Parent cgroup path is invalid"),
            (&["--parent-cgroup", "./here"], "Parent cgroup path is invalid"),
            (&["--resource-limit", "nproc=1"], "Invalid resource argument: nproc"),
            (&["--resource-limit", "no-file=x"], "Invalid limit value for resource: x"),
            (&["--resource-limit", "no-file"], "Invalid format for resources limits: no-file"),
            (&["--resource-limit", "no-file=3"], "Too many open files"),
            (&["--uid", "5"], "The argument 'uid' was provided more than once."),
            (&["--netns", "/nowhere"], "Failed to open file /nowhere: No such file or directory"),
        ] {
            with(items).assert_refused((name, items), message);
        }
        let outcome = with(&["--resource-limit", "fsize=1"]);
        assert_eq!(outcome.signal, Some(Signal::SIGXFSZ as i32), "{name}: {outcome:?}");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_exec_file_is_a_regular_file() {
    for rig in Rig::each() {
        let mut launch = rig.launch();
        launch.exec_file = rig.scratch.dir("directory");
        launch.run().assert_refused(&rig.name, "directory is not a file");
        launch.exec_file = rig.scratch.join("nowhere");
        launch.run().assert_refused(&rig.name, "Failed to canonicalize path");
        let mut launch = rig.launch();
        launch.base = rig.scratch.join("firecracker");
        launch.run().assert_refused(&rig.name, "firecracker is not a directory");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_jail_is_named_after_the_canonical_exec_file() {
    for rig in Rig::each() {
        let mut launch = rig.launch();
        fs::copy(rig.binaries.stub(), rig.scratch.join("anything-v9")).unwrap();
        symlink("anything-v9", rig.scratch.join("fc")).unwrap();
        symlink(&launch.base, rig.scratch.join("base-link")).unwrap();
        let base = std::mem::replace(&mut launch.base, rig.scratch.join("base-link"));
        launch.exec_file = rig.scratch.join("fc");
        launch.run().assert_started(&rig.name);
        assert!(base.join("anything-v9/vm-1/root/anything-v9").is_file(), "{}", rig.name);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1, "{}", rig.name);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn what_a_jail_holds() {
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    let userfaultfd = misc.lines().find_map(|line| line.strip_suffix(" userfaultfd")?.parse().ok());
    for rig in Rig::each() {
        let launch = rig.launch();
        launch.run().assert_started(&rig.name);
        let root = launch.root();
        let entry = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        for dir in ["", "dev", "dev/net", "run"] {
            let dir = entry(dir);
            assert_eq!((dir.mode(), dir.uid(), dir.gid()), (0o40_700, UID, GID), "{}", rig.name);
        }
        let mut nodes = vec![("dev/kvm", 10, 232), ("dev/net/tun", 10, 200), ("dev/urandom", 1, 9)];
        nodes.extend(userfaultfd.map(|minor| ("dev/userfaultfd", 10, minor)));
        for (path, major, minor) in &nodes {
            let node = entry(path);
            assert!(node.file_type().is_char_device(), "{}: {path}", rig.name);
            assert_eq!(
                (node.mode() & 0o7777, node.uid(), node.gid()),
                (0o600, UID, GID),
                "{}: {path}",
                rig.name
            );
            assert_eq!(node.rdev(), makedev(*major, *minor), "{}: {path}", rig.name);
        }
        let copy = entry("firecracker");
        assert_eq!((copy.uid(), copy.gid(), copy.nlink()), (UID, GID, 1), "{}", rig.name);
        assert_eq!(
            fs::read(root.join("firecracker")).unwrap(),
            fs::read(&launch.exec_file).unwrap()
        );
        // Root's own, in a directory that is not: it can be replaced.
        assert_eq!(entry("firecracker.pid").uid(), 0, "{}", rig.name);
        let pid = fs::read_to_string(root.join("firecracker.pid")).unwrap();
        assert!(pid.parse::<u32>().is_ok(), "{}: {pid:?}", rig.name);
        let count = |dir: &str| fs::read_dir(root.join(dir)).unwrap().count();
        assert_eq!((count(""), count("dev"), count("run")), (4, nodes.len(), 0), "{}", rig.name);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn environment_and_descriptors_are_not_handed_on() {
    for rig in Rig::each() {
        let open = fs::File::open("/dev/null").unwrap();
        rustix::io::fcntl_setfd(&open, rustix::io::FdFlags::empty()).unwrap();
        let launch = rig.launch().stub(&["--hold"]);
        let mut command = launch.command();
        let child = held(command.env("SECRET", "1").stdin(Stdio::piped()).stdout(Stdio::piped()));
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
fn an_existing_node_is_fatal() {
    for rig in Rig::each() {
        for (dir, node, major, minor) in [("dev", "kvm", 10, 232), ("dev/net", "tun", 10, 200)] {
            let launch = rig.launch();
            let path = launch.stage(dir).join(node);
            mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(major, minor))
                .unwrap();
            let message = format!(
                "Failed to create /{dir}/{node} via mknod inside the jail: File exists (os error 17)"
            );
            launch.run().assert_refused((&rig.name, node), &message);
        }
        // The one that is only warned of.
        let launch = rig.launch();
        let path = launch.stage("dev").join("urandom");
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 9)).unwrap();
        let outcome = launch.run();
        outcome.assert_started(&rig.name);
        assert!(
            outcome.stdout.contains("Warning! Could not create /dev/urandom device inside jailer"),
            "{outcome:?}"
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn leftovers_of_a_run_are_fatal() {
    for rig in Rig::each() {
        let launch = rig.launch();
        launch.run().assert_started(&rig.name);
        fs::remove_dir_all(launch.root().join("dev")).unwrap();
        launch.run().assert_refused(
            &rig.name,
            "Failed to open file /firecracker.pid: File exists (os error 17)",
        );

        let launch = rig.launch();
        launch.stage("old_root");
        let message = "Failed to create the jail root directory before pivoting root: File exists (os error 17)";
        launch.run().assert_refused(&rig.name, message);

        // The third one Firecracker finds.
        let mut launch = rig.launch().stub(&["--api-sock", "/api.sock"]);
        launch.exec_file = rig.binaries.firecracker().to_owned();
        drop(UnixListener::bind(launch.stage("").join("api.sock")).unwrap());
        let outcome = launch.run();
        assert_eq!(outcome.code, Some(1), "{}: {outcome:?}", rig.name);
        assert!(
            outcome.stdout.contains("Failed to open the API socket at: /api.sock."),
            "{}: {outcome:?}",
            rig.name
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_running_exec_copy_is_text_file_busy() {
    for rig in Rig::each() {
        let launch = rig.launch();
        let child = launch.hold();
        launch.run().assert_refused(&rig.name, "Text file busy (os error 26)");
        drop(child);
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

/// What becomes of a process nobody is told of.
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
fn the_first_of_a_namespace_keeps_its_status() {
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

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn nodev_denies_the_nodes_and_noexec_the_start() {
    use nix::mount::MsFlags;
    for rig in Rig::each() {
        for (flags, opens) in [(MsFlags::empty(), true), (MsFlags::MS_NODEV, false)] {
            let launch = rig.launch().stub(&["--open", "/dev/urandom"]);
            let _tmpfs = Tmpfs::mount_with(&launch.base, "size=64m,mode=0755", flags);
            let outcome = launch.run();
            outcome.assert_started(&rig.name);
            let said = if opens {
                "/dev/urandom opens"
            } else {
                "/dev/urandom does not open: Permission denied"
            };
            assert!(outcome.stdout.contains(said), "{}: {flags:?}: {outcome:?}", rig.name);
        }
        let launch = rig.launch();
        let _tmpfs = Tmpfs::mount_with(&launch.base, "size=64m,mode=0755", MsFlags::MS_NOEXEC);
        launch.run().assert_refused(
            &rig.name,
            "Failed to exec into Firecracker: Permission denied (os error 13)",
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_dynamic_exec_file_does_not_start() {
    let Some(dynamic) = ["/bin/sh", "/bin/ls"].iter().map(Path::new).find(|file| is_dynamic(file))
    else {
        return skip(
            "a_dynamic_exec_file_does_not_start",
            "this machine has no dynamic program at /bin/sh or /bin/ls",
        );
    };
    for rig in Rig::each() {
        let mut launch = rig.launch();
        launch.exec_file = rig.scratch.join("firecracker-dynamic");
        fs::copy(dynamic, &launch.exec_file).unwrap();
        launch.run().assert_refused(
            &rig.name,
            "Failed to exec into Firecracker: No such file or directory (os error 2)",
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn older_releases_differ_as_the_table_says() {
    let (official, acted) = Rig::older(&RELEASES);
    if official.is_empty() {
        skip(
            "older_releases_differ_as_the_table_says (official)",
            "no older official jailers here; see MICROVM_OLD_JAILERS",
        );
    }
    for rig in official.iter().chain(&acted) {
        let has = |feature| rig.release.supports(feature);
        let refused = |outcome: &Outcome, message: &str| fails_like(rig, outcome, message);

        let mut short_help = rig.launch();
        "-h".clone_into(&mut short_help.id);
        match (short_help.run(), has(Feature::ShortHelp)) {
            (outcome, true) => assert_eq!(
                (outcome.code, short_help.root().exists()),
                (Some(0), false),
                "{}",
                rig.name
            ),
            (outcome, false) => outcome.assert_started((&rig.name, "-h")),
        }

        let plain = rig.launch();
        plain.run().assert_started(&rig.name);
        assert_eq!(
            plain.root().join("firecracker.pid").exists(),
            has(Feature::PidFileAlways),
            "{}",
            rig.name
        );

        let node = rig.launch();
        let kvm = node.stage("dev").join("kvm");
        mknod(&kvm, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(10, 232)).unwrap();
        refused(&node.run(), "File exists (os error 17)");

        let mut other_name = rig.launch();
        other_name.exec_file = rig.scratch.join("other");
        fs::copy(rig.binaries.stub(), &other_name.exec_file).unwrap();
        match (other_name.run(), has(Feature::AnyExecName)) {
            (outcome, true) => outcome.assert_started((&rig.name, "exec name")),
            (outcome, false) => refused(&outcome, "must contain"),
        }

        // CVE-2026-1386: root writes where the VM's user points. A planted hard link is the same.
        let linked = rig.launch();
        let victim = rig.scratch.file("victim", "precious");
        fs::set_permissions(&victim, fs::Permissions::from_mode(0o600)).unwrap();
        symlink(&victim, linked.stage("").join("firecracker")).unwrap();
        let outcome = linked.run();
        let kept = fs::read_to_string(&victim).map_err(|err| err.kind());
        if has(Feature::ChecksExecCopy) {
            refused(&outcome, "Too many levels of symbolic links (os error 40)");
            assert_eq!(kept, Ok("precious".to_owned()), "{}", rig.name);
        } else {
            assert_eq!(
                kept,
                Err(ErrorKind::InvalidData),
                "{}: it was not overwritten by the program",
                rig.name
            );
        }
        fs::remove_file(&victim).unwrap();
    }
}

/// A refusal in the manner of its release: a message and a second line, or a panic that aborts.
#[track_caller]
fn fails_like(rig: &Rig, outcome: &Outcome, message: &str) {
    if rig.release.supports(Feature::PlainErrors) {
        return outcome.assert_refused(&rig.name, message);
    }
    assert_eq!(outcome.signal, Some(Signal::SIGABRT as i32), "{}: {outcome:?}", rig.name);
    let line = outcome.stderr.lines().find_map(|line| line.strip_prefix("Jailer error: "));
    assert!(
        line.is_some_and(|line| line.contains(message)),
        "{}: {message:?}: {outcome:?}",
        rig.name
    );
    assert!(outcome.stderr.contains("panicked at "), "{}: {outcome:?}", rig.name);
}

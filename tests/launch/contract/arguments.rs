//! The arguments: what the jailer refuses, and in what words.

use std::fs;

use nix::sys::signal::Signal;

use super::RELEASES;
use super::rig::Rig;

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
fn exec_file_is_regular() {
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

//! The jailer's control groups: what it makes, joins and leaves behind.

use std::fs;
use std::process::{Command, Stdio};

use testkit::{KillOnDrop, skip};

use super::rig::{Rig, cgroup_of, hierarchy, v2_has};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn judged_cgroup_values() {
    let Some(pids) = hierarchy("pids") else {
        return skip("judged_cgroup_values", "no v1 hierarchy has pids here");
    };
    for rig in Rig::each() {
        let v1 = |setting: &str| {
            rig.launch()
                .with(&[
                    "--cgroup-version",
                    "1",
                    "--parent-cgroup",
                    &rig.parent,
                    "--cgroup",
                    setting,
                ])
                .run()
        };
        v1("pids.max=10").assert_started(&rig.name);
        for (setting, message) in [
            ("pids.max=", "Invalid format for cgroups: pids.max="),
            ("pids.max", "Invalid format for cgroups: pids.max"),
            ("pids.a=b=c", "Invalid format for cgroups: pids.a=b=c"),
            ("nope.max=1", "Controller nope is unavailable"),
            ("nope=1", "Cgroup invalid file: nope"),
            ("../x.max=1", "Cgroup invalid file: ../x.max=1"),
            ("/x.max=1", "Cgroup invalid file: /x.max=1"),
            ("pids.nothing=1", "Failed to read file"),
        ] {
            v1(setting).assert_refused((&rig.name, setting), message);
        }
        // What only the kernel refuses is refused when the leaf is there; it stays.
        let leaf = pids.join(&rig.parent).join("vm-1");
        fs::remove_dir(&leaf).unwrap();
        v1("pids.max=zzz").assert_refused(&rig.name, "Failed to write to");
        assert!(leaf.is_dir(), "{}", rig.name);
        if hierarchy("").is_some() && !v2_has("pids") {
            let v2 = [
                "--cgroup-version",
                "2",
                "--parent-cgroup",
                &rig.parent,
                "--cgroup",
                "pids.max=10",
            ];
            rig.launch()
                .with(&v2)
                .run()
                .assert_refused(&rig.name, "Controller pids is unavailable");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_default_version_is_1() {
    for rig in Rig::each() {
        let launch =
            rig.launch().with(&["--parent-cgroup", &rig.parent, "--cgroup", "pids.max=10"]);
        match hierarchy("pids") {
            Some(pids) => {
                launch.run().assert_started(&rig.name);
                assert!(pids.join(&rig.parent).join("vm-1").is_dir(), "{}", rig.name);
            }
            None if testkit::mounts::all().iter().any(|mount| mount.fstype == "cgroup") => {
                launch.run().assert_refused(&rig.name, "Controller pids is unavailable");
            }
            None => launch.run().assert_refused(
                &rig.name,
                "Hierarchy not found: No hierarchy found for this cgroup version.",
            ),
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn v1_makes_a_leaf_per_controller() {
    let (Some(pids), Some(cpuset)) = (hierarchy("pids"), hierarchy("cpuset")) else {
        return skip("v1_makes_a_leaf_per_controller", "v1 has no pids or no cpuset here");
    };
    for rig in Rig::each() {
        let parent = format!("{}/nested", rig.parent);
        let settings =
            ["--cgroup", "pids.max=10", "--cgroup", "cpuset.mems=0", "--cgroup", "cpuset.cpus=0"];
        let launch = rig
            .launch()
            .with(&["--cgroup-version", "1", "--parent-cgroup", &parent])
            .with(&settings);
        let ours = cgroup_of(std::process::id(), "memory");
        let child = launch.hold();
        let leaf = format!("{parent}/vm-1");
        for controller in ["pids", "cpuset"] {
            let group = cgroup_of(child.id(), controller).unwrap();
            assert!(group.ends_with(&leaf), "{}: {controller}: {group}", rig.name);
        }
        assert_eq!(
            cgroup_of(child.id(), "memory"),
            ours,
            "{}: a controller nobody named",
            rig.name
        );
        assert_eq!(fs::read_to_string(pids.join(&leaf).join("pids.max")).unwrap(), "10\n");
        // A new cpuset is empty, and so would be all below it: the parents were filled from theirs.
        for dir in [&rig.parent, &parent] {
            let mems = fs::read_to_string(cpuset.join(dir).join("cpuset.mems")).unwrap();
            assert_ne!(mems.trim(), "", "{}: {dir}", rig.name);
        }
        drop(child);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn v2_without_cgroup_joins_the_parent_or_nothing() {
    let Some(top) = hierarchy("") else {
        return skip(
            "v2_without_cgroup_joins_the_parent_or_nothing",
            "no v2 hierarchy is mounted here",
        );
    };
    for rig in Rig::each() {
        let launch =
            || rig.launch().with(&["--cgroup-version", "2", "--parent-cgroup", &rig.parent]);
        let child = launch().hold();
        // In silence.
        assert_eq!(cgroup_of(child.id(), ""), cgroup_of(std::process::id(), ""), "{}", rig.name);
        assert!(!top.join(&rig.parent).exists(), "{}", rig.name);
        drop(child);

        fs::create_dir(top.join(&rig.parent)).unwrap();
        let child = launch().hold();
        let group = cgroup_of(child.id(), "").unwrap();
        assert!(group.ends_with(&rig.parent), "{}: {group}: it is no leaf of its own", rig.name);
        drop(child);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn v2_with_cgroup_makes_the_leaf() {
    if !v2_has("pids") {
        return skip("v2_with_cgroup_makes_the_leaf", "v2 has no pids to give here");
    }
    let top = hierarchy("").unwrap();
    for rig in Rig::each() {
        let args =
            ["--cgroup-version", "2", "--parent-cgroup", &rig.parent, "--cgroup", "pids.max=10"];
        let child = rig.launch().with(&args).hold();
        let leaf = format!("{}/vm-1", rig.parent);
        let group = cgroup_of(child.id(), "").unwrap();
        assert!(group.ends_with(&leaf), "{}: {group}", rig.name);
        assert_eq!(fs::read_to_string(top.join(&leaf).join("pids.max")).unwrap(), "10\n");
        let enabled =
            fs::read_to_string(top.join(&rig.parent).join("cgroup.subtree_control")).unwrap();
        assert!(enabled.split_whitespace().any(|one| one == "pids"), "{}: {enabled}", rig.name);
        drop(child);
        testkit::remove_cgroup(&rig.parent);

        // No internal processes: a parent that has one of its own cannot give controllers on. (pids alone may, as a
        // threaded controller does; memory never.)
        if v2_has("memory") {
            fs::create_dir(top.join(&rig.parent)).unwrap();
            let own = KillOnDrop::spawn(
                Command::new("/bin/sh").args(["-c", "read _"]).stdin(Stdio::piped()),
            );
            fs::write(top.join(&rig.parent).join("cgroup.procs"), own.id().to_string()).unwrap();
            let args = [
                "--cgroup-version",
                "2",
                "--parent-cgroup",
                &rig.parent,
                "--cgroup",
                "memory.max=100M",
            ];
            let outcome = rig.launch().with(&args).run();
            assert_eq!(outcome.code, Some(1), "{}: {outcome:?}", rig.name);
            assert!(outcome.stderr.contains("Failed to write to"), "{}: {outcome:?}", rig.name);
            drop(own);
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn nothing_is_cleaned_up() {
    for rig in Rig::each() {
        let version = if hierarchy("pids").is_some() { "1" } else { "2" };
        if version == "2" && !v2_has("pids") {
            return skip("nothing_is_cleaned_up", "neither version has pids to give here");
        }
        let args = [
            "--cgroup-version",
            version,
            "--parent-cgroup",
            &rig.parent,
            "--cgroup",
            "pids.max=10",
        ];
        let launch = rig.launch().with(&args);
        launch.run().assert_started(&rig.name);
        assert!(launch.root().join("dev/kvm").exists(), "{}", rig.name);
        assert_eq!(testkit::cgroups_named(&rig.parent, "vm-1").len(), 1, "{}", rig.name);
    }
}

//! Leaves of rival launchers, and of a killed launcher.

use std::fs;
use std::sync::Barrier;

use jail_cgroup::{CgroupVersion, ErrorKind, Leaf, Limits};

use crate::support::{Actor, FOREVER, Ground, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn one_of_two_creators_wins() {
    const TEST: &str = "rivals::one_of_two_creators_wins";
    for ground in Ground::each(TEST, &Limits::new()) {
        let plan = ground.plan("leaf", &Limits::new());
        let mut outcomes = [0; 3];
        for round in 0..100 {
            // Every other time there is an empty one already, as a crashed launcher leaves it.
            if round % 2 == 0 {
                drop(plan.create().unwrap());
            }
            let barrier = Barrier::new(2);
            let create = || {
                barrier.wait();
                plan.create()
            };
            let (one, two) = std::thread::scope(|scope| {
                let (one, two) = (scope.spawn(create), scope.spawn(create));
                (one.join().unwrap(), two.join().unwrap())
            });
            let mut held: Vec<Leaf> = Vec::new();
            for made in [one, two] {
                match made {
                    // One that was removed again by the other is nobody's.
                    Ok(leaf) if leaf.stats().is_ok() => held.push(leaf),
                    Ok(_) => {}
                    Err(error) => assert!(
                        matches!(error.kind(), ErrorKind::Busy | ErrorKind::NotFound),
                        "{error}: {error:?}"
                    ),
                }
            }
            outcomes[held.len()] += 1;
            assert!(held.len() < 2, "round {round}: both have it");
            for leaf in held {
                assert!(leaf.paths().eq(plan.paths()));
                leaf.remove().unwrap();
            }
        }
        println!("{TEST}: {}: {outcomes:?} times nobody, one, both", ground.version);
        assert!(outcomes[1] > 0);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_killed_launchers_leaf_is_removed() {
    play();
    const TEST: &str = "rivals::a_killed_launchers_leaf_is_removed";
    for ground in Ground::each(TEST, &Limits::new()) {
        let role = format!("launcher {} {}", ground.parent, ground.version);
        let mut launcher = Actor::new(TEST, &role);
        launcher.go();
        let orphan: u32 = launcher.says("launched").parse().unwrap();
        launcher.kill();
        assert_eq!(launcher.wait(), Err(9));

        let leaf = ground.plan("leaf", &Limits::new()).id().open(&ground.host).unwrap().unwrap();
        assert_eq!(leaf.members().unwrap(), [orphan]);
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        leaf.remove().unwrap();
        assert!(ground.dirs().is_empty(), "{:?}", ground.dirs());
    }
}

/// Launches something and waits to be killed.
pub(crate) fn launcher() {
    let ground = Ground::of_role();
    let leaf = ground.leaf("leaf", &Limits::new());
    let test = "rivals::a_killed_launchers_leaf_is_removed";
    let mut orphan = Actor::in_leaf(&leaf, test, "orphan");
    orphan.go();
    orphan.says("orphan");
    println!("\nlaunched {}", orphan.pid());
    std::io::stdin().read_line(&mut String::new()).unwrap();
    // It is not this process's to clean up.
    std::mem::forget((orphan, ground));
}

/// A v2 group may have threads in threaded subgroups.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn threaded_groups_are_removed() {
    play();
    const TEST: &str = "rivals::threaded_groups_are_removed";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut spin = Actor::in_leaf(&leaf, TEST, "spin 2");
        spin.go();
        spin.says("spinning");
        let tasks = || fs::read_dir(format!("/proc/{}/task", spin.pid())).unwrap();
        crate::support::eventually("the threads start", || tasks().count() > 3);
        let thread = tasks()
            .map(|task| task.unwrap().file_name().into_string().unwrap())
            .find(|thread| *thread != spin.pid().to_string())
            .unwrap();
        for path in leaf.paths() {
            let below = path.join("threads");
            fs::create_dir(&below).unwrap();
            match ground.version {
                CgroupVersion::V1 => fs::write(below.join("tasks"), &thread).unwrap(),
                CgroupVersion::V2 => {
                    fs::write(below.join("cgroup.type"), "threaded").unwrap();
                    fs::write(below.join("cgroup.threads"), &thread).unwrap();
                }
            }
        }
        assert_eq!(leaf.members().unwrap(), [spin.pid()]);
        assert!(leaf.contains(spin.pid()).unwrap());
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(spin.wait(), Err(9));
        let groups = leaf.paths().count();
        // Each hierarchy's threads, its leaf and its parent.
        assert_eq!(leaf.remove().unwrap().removed.len(), 3 * groups);
        assert!(ground.dirs().is_empty());
    }
}

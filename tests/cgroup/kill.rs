//! A fork bomb stops at `pids_max`, and none of it outlives the kill (threats.md, row 32).

use std::time::{Duration, Instant};

use jail_cgroup::{ErrorKind, Limits};

use crate::support::{Actor, FOREVER, Ground, eventually, play};

const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_32_a_fork_bomb_stops_at_the_limit_and_dies_of_the_kill() {
    play();
    const TEST: &str = "kill::row_32_a_fork_bomb_stops_at_the_limit_and_dies_of_the_kill";
    const MOST: u64 = 64;
    let limits = Limits::new().pids_max(MOST);
    for ground in Ground::each(TEST, &limits) {
        let mut times: Vec<Duration> = Vec::new();
        // The promise is a second; the machine may be busy with something else for some of them.
        while times.len() < 3 || times.len() < 10 && times.iter().all(|time| *time >= SECOND) {
            let leaf = ground.leaf("leaf", &limits);
            let mut bomb = Actor::in_leaf(&leaf, TEST, "bomb");
            bomb.go();
            let mut most = 0;
            eventually("forks are denied", || {
                let stats = leaf.stats().unwrap();
                most = most.max(stats.pids_current.unwrap());
                stats.pids_denied.unwrap() > 0
            });
            assert!(most <= MOST, "{most} tasks of {MOST}");
            assert!(leaf.members().unwrap().len() > 8);

            let begun = Instant::now();
            leaf.kill().unwrap();
            leaf.wait_empty(FOREVER).unwrap();
            times.push(begun.elapsed());
            assert_eq!(bomb.wait(), Err(9));
            // The dead still count as tasks until init, whose orphans they are, has reaped them.
            assert_eq!(leaf.members().unwrap(), Vec::<u32>::new(), "somebody lives");
            leaf.remove().unwrap();
        }
        println!("{TEST}: {}: dead {times:?} after the kill", ground.version);
        assert!(times.iter().any(|time| *time < SECOND), "{times:?}");
    }
}

/// Without a limit and without a freezer there is still `cgroup.kill`, or the pids controller to hold it with.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_fork_bomb_without_a_limit_dies_too() {
    play();
    const TEST: &str = "kill::a_fork_bomb_without_a_limit_dies_too";
    for ground in Ground::each(TEST, &Limits::new()) {
        // Far above what it gets to, so that a failure does not take the machine with it.
        let guard = Limits::new().pids_max(2000);
        let limits =
            match jail_cgroup::LeafPlan::new(&ground.host, ground.version, "p", "l", &guard) {
                Ok(_) => guard,
                Err(_) => Limits::new(),
            };
        let leaf = ground.leaf("leaf", &limits);
        let mut bomb = Actor::in_leaf(&leaf, TEST, "bomb");
        bomb.go();
        eventually("it grows", || leaf.members().unwrap().len() > 20);
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(bomb.wait(), Err(9));
        leaf.remove().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_frozen_die_too() {
    play();
    const TEST: &str = "kill::the_frozen_die_too";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        match leaf.freeze(FOREVER) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                testkit::skip(TEST, &error.to_string());
                continue;
            }
            frozen => frozen.unwrap(),
        }
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn nobody_kills_themselves_by_mistake() {
    play();
    const TEST: &str = "kill::nobody_kills_themselves_by_mistake";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let role = format!("suicidal {} {}", ground.parent, ground.version);
        let mut actor = Actor::in_leaf(&leaf, TEST, &role);
        actor.go();
        assert_eq!(actor.says("kill"), "InvalidInput");
        assert_eq!(actor.wait(), Ok(0));
    }
}

/// Tries to kill the leaf it is in.
pub(crate) fn suicidal() {
    let ground = Ground::of_role();
    let id = ground.plan("leaf", &Limits::new()).id();
    let leaf = id.open(&ground.host).unwrap().unwrap();
    println!("\nkill {:?}", leaf.kill().unwrap_err().kind());
    // It is not this process's to clean up.
    std::mem::forget(ground);
}

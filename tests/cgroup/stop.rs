//! Freezing and waiting.

use std::fs;
use std::time::Duration;

use jail_cgroup::{ErrorKind, Limits};

use crate::support::{Actor, FOREVER, Ground, eventually, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn freezing_stops_processes() {
    play();
    const TEST: &str = "stop::freezing_stops_processes";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let Some(_) = leaf.stats().unwrap().cpu_usage else {
            testkit::skip(TEST, "v1 without cpuacct does not account for CPU time");
            continue;
        };
        let usage = || leaf.stats().unwrap().cpu_usage.unwrap();
        let mut spin = Actor::in_leaf(&leaf, TEST, "spin 2");
        spin.go();
        spin.says("spinning");
        match leaf.freeze(FOREVER) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                testkit::skip(TEST, &error.to_string());
                continue;
            }
            frozen => frozen.unwrap(),
        }
        let before = usage();
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(usage(), before);
        leaf.thaw().unwrap();
        eventually("it goes on", || usage() > before + Duration::from_millis(20));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn timeouts_name_processes() {
    play();
    const TEST: &str = "stop::timeouts_name_processes";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        leaf.wait_empty(Duration::ZERO).unwrap();
        let idle = Actor::in_leaf(&leaf, TEST, "idle");
        let error = leaf.wait_empty(Duration::from_millis(50)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout);
        assert!(error.to_string().contains(&idle.pid().to_string()), "{error}");
    }
}

/// One that is moved to another group has left, and need not end.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn moved_processes_are_not_awaited() {
    play();
    const TEST: &str = "stop::moved_processes_are_not_awaited";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let other = ground.leaf("other", &Limits::new());
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| leaf.wait_empty(FOREVER));
            // It should be waiting by then; where it is not, it has less to wait for.
            std::thread::sleep(Duration::from_millis(100));
            other.adopt(idle.pid()).unwrap();
            waiting.join().unwrap().unwrap();
        });
        assert!(idle.is_alive());
        assert!(other.contains(idle.pid()).unwrap());
    }
}

/// The waiting thread sleeps in the kernel until there is news: it is woken for that, not for looking.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn waiting_is_driven_by_events() {
    play();
    const TEST: &str = "stop::waiting_is_driven_by_events";
    let wakes = || -> u64 {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        line.unwrap().trim().parse().unwrap()
    };
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let idle = Actor::in_leaf(&leaf, TEST, "idle");
        let killer = ground.plan("leaf", &Limits::new()).id().open(&ground.host).unwrap().unwrap();
        let woken = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let before = wakes();
                leaf.wait_empty(FOREVER).unwrap();
                wakes() - before
            });
            // Looking every 10 ms would be 100 times.
            std::thread::sleep(Duration::from_secs(1));
            killer.kill().unwrap();
            waiting.join().unwrap()
        });
        println!("{TEST}: {}: woken {woken} times", ground.version);
        assert!(woken < 30, "woken {woken} times");
        drop(idle);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_longest_timeout_is_for_ever() {
    play();
    const TEST: &str = "stop::the_longest_timeout_is_for_ever";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        match leaf.freeze(Duration::MAX) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                testkit::skip(TEST, &error.to_string());
            }
            frozen => {
                frozen.unwrap();
                assert_eq!(leaf.frozen_by().unwrap(), frozen_dir(&leaf));
                leaf.thaw().unwrap();
                assert!(!leaf.is_frozen().unwrap());
            }
        }
        leaf.kill().unwrap();
        leaf.wait_empty(Duration::MAX).unwrap();
        assert_eq!(idle.wait(), Err(9));
    }
}

/// The leaf's directory in the hierarchy that freezes.
fn frozen_dir(leaf: &jail_cgroup::Leaf) -> Option<std::path::PathBuf> {
    let has = |path: &std::path::PathBuf, file: &str| path.join(file).exists();
    leaf.paths().find(|path| has(path, "freezer.state") || has(path, "cgroup.freeze"))
}

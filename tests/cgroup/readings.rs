//! Statistics of a leaf.

use std::time::Duration;

use jail_cgroup::{ByteSize, CgroupVersion, Controller, Limits};

use crate::support::{Actor, Ground, eventually, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn stats_measure_the_members() {
    play();
    const TEST: &str = "readings::stats_measure_the_members";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let usable = |controller| ground.host.usable(ground.version, controller).is_ok();
        let before = leaf.stats().unwrap();
        let mut spin = Actor::in_leaf(&leaf, TEST, "spin 2");
        let mut hog = Actor::in_leaf(&leaf, TEST, "hog 32");
        spin.go();
        spin.says("spinning");
        hog.go();
        assert_eq!(hog.wait(), Ok(0));
        if usable(Controller::Cpuacct) {
            eventually("time is used", || {
                leaf.stats().unwrap().cpu_usage > Some(Duration::from_millis(50))
            });
        }
        let stats = leaf.stats().unwrap();
        println!("{TEST}: {}: {stats:#?}", ground.version);

        assert_eq!(stats.cpu_usage.is_some(), usable(Controller::Cpuacct));
        if let Some(usage) = stats.cpu_usage {
            assert!(usage > before.cpu_usage.unwrap());
            let parts = stats.cpu_user.unwrap() + stats.cpu_system.unwrap();
            assert!(parts > Duration::ZERO && parts <= usage + Duration::from_millis(500));
        }
        assert_eq!(stats.memory_current.is_some(), usable(Controller::Memory));
        if let Some(current) = stats.memory_current {
            assert!(current > ByteSize::kib(64) && current < ByteSize::gib(1), "{current}");
            if let Some(peak) = stats.memory_peak {
                assert!(peak >= current && peak >= ByteSize::mib(32), "{peak}");
            }
            assert_eq!(stats.memory_events.unwrap().oom_kill, 0);
        }
        assert_eq!(stats.pids_current.is_some(), usable(Controller::Pids));
        if let Some(tasks) = stats.pids_current {
            // The harness's thread, and two that spin.
            assert!((3..=8).contains(&tasks), "{tasks}");
            assert!(stats.pids_denied.is_none_or(|denied| denied == 0));
            assert!(stats.pids_peak.is_none_or(|peak| peak >= tasks));
        }
        if ground.version == CgroupVersion::V1 {
            assert_eq!(stats.cpu_pressure, None);
        }
    }
}

/// Pressure is v2's; two who want a CPU that is a quarter each wait for it.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn cpu_contention_is_pressure() {
    play();
    const TEST: &str = "readings::cpu_contention_is_pressure";
    let limits = Limits::new();
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        if leaf.stats().unwrap().cpu_pressure.is_none() {
            testkit::skip(TEST, &format!("{} here keeps no pressure", ground.version));
            continue;
        }
        let mut spin = Actor::in_leaf(&leaf, TEST, "spin 8");
        spin.go();
        spin.says("spinning");
        eventually("they wait for each other", || {
            leaf.stats().unwrap().cpu_pressure.unwrap().some.total > Duration::from_millis(10)
        });
    }
}

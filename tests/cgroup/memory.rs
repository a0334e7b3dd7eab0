//! Memory limits and OOM kills.

use jail_cgroup::{ByteSize, Limits};

use crate::support::{Actor, Ground, eventually, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn oom_kills_are_counted() {
    play();
    const TEST: &str = "memory::oom_kills_are_counted";
    let limits = Limits::new().memory_max(ByteSize::mib(48));
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        let mut bystander = Actor::in_leaf(&leaf, TEST, "idle");
        bystander.go();
        bystander.says("idle");
        assert_eq!(leaf.oom_kills().unwrap(), 0);

        // What fits, fits.
        let mut modest = Actor::in_leaf(&leaf, TEST, "hog 16");
        modest.go();
        assert_eq!(modest.wait(), Ok(0));
        assert_eq!(leaf.oom_kills().unwrap(), 0);

        let mut hog = Actor::in_leaf(&leaf, TEST, "hog 512");
        hog.go();
        assert_eq!(hog.wait(), Err(9));
        eventually("the kill is counted", || leaf.oom_kills().unwrap() == 1);
        assert!(bystander.is_alive());
        let stats = leaf.stats().unwrap();
        let events = stats.memory_events.unwrap();
        assert_eq!(events.oom_kill, 1);
        assert!(events.max > 0);
        // Before Linux 5.19 v2 keeps no peak.
        if let Some(peak) = stats.memory_peak {
            // The dying are given a page or two that they need for it.
            assert!(peak <= ByteSize::mib(49) && peak > ByteSize::mib(24), "{peak}");
        }
        println!("{TEST}: {}: {events:?}", ground.version);
    }
}

/// Over `memory_high`, a process is slowed down, not killed.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn memory_high_slows_down() {
    play();
    const TEST: &str = "memory::memory_high_slows_down";
    let limits = Limits::new().memory_high(ByteSize::mib(32));
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        let mut hog = Actor::in_leaf(&leaf, TEST, "hog 512");
        hog.go();
        eventually("it meets the limit", || {
            leaf.stats().unwrap().memory_events.unwrap().high > Some(0)
        });
        let stats = leaf.stats().unwrap();
        println!("{TEST}: {}: {:?}", ground.version, stats.memory_events);
        assert_eq!(leaf.oom_kills().unwrap(), 0);
        assert!(stats.memory_current > Some(ByteSize::mib(24)), "{stats:?}");
        assert!(hog.is_alive(), "all of 512 MiB, over a limit of 32");
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn sigkill_is_no_oom_kill() {
    play();
    const TEST: &str = "memory::sigkill_is_no_oom_kill";
    let limits = Limits::new().memory_max(ByteSize::mib(48));
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        leaf.kill().unwrap();
        assert_eq!(idle.wait(), Err(9));
        assert_eq!(leaf.oom_kills().unwrap(), 0);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn oom_group_kills_all() {
    play();
    const TEST: &str = "memory::oom_group_kills_all";
    let limits = Limits::new().memory_max(ByteSize::mib(48)).oom_group(true);
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        let mut bystander = Actor::in_leaf(&leaf, TEST, "idle");
        let mut hog = Actor::in_leaf(&leaf, TEST, "hog 512");
        hog.go();
        assert_eq!(hog.wait(), Err(9));
        assert_eq!(bystander.wait(), Err(9));
        // Which of the two are counted has changed from kernel to kernel; that it was a group's kill has not.
        eventually("the kill is counted", || leaf.oom_kills().unwrap() > 0);
        let events = leaf.stats().unwrap().memory_events.unwrap();
        assert!(events.oom_group_kill.is_none_or(|kills| kills > 0), "{events:?}");
    }
}

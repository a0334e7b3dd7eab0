//! A process over `memory_max` is OOM-killed, alone unless asked otherwise, and it is reported so.

use jail_cgroup::{ByteSize, Limits};

use crate::support::{Actor, Ground, eventually, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn who_uses_too_much_is_killed_alone_and_that_is_known() {
    play();
    const TEST: &str = "memory::who_uses_too_much_is_killed_alone_and_that_is_known";
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

/// Over `memory_high` it is held back, not killed.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn who_uses_much_is_slowed_down_where_asked() {
    play();
    const TEST: &str = "memory::who_uses_much_is_slowed_down_where_asked";
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
fn a_kill_by_hand_is_no_oom_kill() {
    play();
    const TEST: &str = "memory::a_kill_by_hand_is_no_oom_kill";
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
fn a_group_is_killed_as_a_whole_where_asked() {
    play();
    const TEST: &str = "memory::a_group_is_killed_as_a_whole_where_asked";
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

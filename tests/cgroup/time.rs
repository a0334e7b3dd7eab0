//! A quota of CPU time holds.

use std::time::{Duration, Instant};

use jail_cgroup::{Leaf, Limits};

use crate::support::{Actor, Ground, play};

/// CPUs used over a window: CPU time per time.
fn used(leaf: &Leaf, window: Duration) -> f64 {
    let usage = || leaf.stats().unwrap().cpu_usage.unwrap();
    let (before, begun) = (usage(), Instant::now());
    std::thread::sleep(window);
    let (after, elapsed) = (usage(), begun.elapsed());
    (after - before).as_secs_f64() / elapsed.as_secs_f64()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_quarter_of_a_cpu_is_a_quarter() {
    play();
    const TEST: &str = "time::a_quarter_of_a_cpu_is_a_quarter";
    const WINDOW: Duration = Duration::from_secs(2);
    let limits = Limits::new().cpus(0.25);
    for ground in Ground::each(TEST, &limits) {
        // Unlimited it takes more: else nothing would be shown.
        let free = ground.leaf("free", &Limits::new());
        if free.stats().unwrap().cpu_usage.is_none() {
            testkit::skip(TEST, "v1 without cpuacct does not account for CPU time");
            continue;
        }
        let mut spin = Actor::in_leaf(&free, TEST, "spin 2");
        spin.go();
        spin.says("spinning");
        let mut most = used(&free, WINDOW);

        let leaf = ground.leaf("leaf", &limits);
        leaf.adopt(spin.pid()).unwrap();
        // A busy host may give less than the quota for a while, never more: all windows count for the upper bound, the
        // best one for the lower.
        let mut windows = Vec::new();
        for _ in 0..15 {
            windows.push(used(&leaf, WINDOW));
            if windows.len() >= 2 && windows.iter().any(|used| *used >= 0.22) {
                break;
            }
        }
        println!("{TEST}: {}: {most:.3} free, then {windows:.3?} of 0.25", ground.version);
        if most <= 0.28 {
            // Once more, for a host that was busy then.
            free.adopt(spin.pid()).unwrap();
            most = used(&free, WINDOW * 5);
        }
        assert!(most > 0.28, "unlimited it got {most:.3}: this shows nothing");
        assert!(windows.iter().all(|used| *used <= 0.28), "{windows:.3?}");
        assert!(windows.iter().any(|used| *used >= 0.22), "{windows:.3?}");
        let throttling = leaf.stats().unwrap().throttling.unwrap();
        assert!(throttling.throttled_periods > 0, "{throttling:?}");
        assert!(throttling.throttled > Duration::ZERO);
    }
}

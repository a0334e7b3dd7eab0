//! A quota of CPU time holds.

use std::time::{Duration, Instant};

use jail_cgroup::{Leaf, Limits};

use crate::support::{Actor, FOREVER, Ground, play};

/// The period of a quota.
const PERIOD: Duration = Duration::from_millis(100);
/// Number of periods that are measured.
const PERIODS: u64 = 40;

fn usage(leaf: &Leaf) -> Duration {
    leaf.stats().unwrap().cpu_usage.unwrap()
}

/// CPUs used: CPU time per time, as the kernel has both. It counts the periods of a quota, and those in which it was used
/// up, so this does not depend on when we get to look.
fn used(leaf: &Leaf) -> f64 {
    let look = || {
        let stats = leaf.stats().unwrap();
        (stats.throttling.unwrap(), stats.cpu_usage.unwrap())
    };
    let (begun, (first, before)) = (Instant::now(), look());
    let (last, after) = loop {
        std::thread::sleep(PERIOD);
        let (now, usage) = look();
        if now.periods - first.periods >= PERIODS {
            break (now, usage);
        }
        assert!(begun.elapsed() < FOREVER, "{now:?} after {first:?}");
    };
    let periods = u32::try_from(last.periods - first.periods).unwrap();
    // A period is no shorter than the clock says. The kernel does not count the periods in which a busy host gives the group no
    // time at all.
    let clock = begun.elapsed().as_secs_f64() / (PERIOD * periods).as_secs_f64();
    assert!(clock >= 0.9, "{periods} periods in {:?}", begun.elapsed());
    (after - before).as_secs_f64() / (PERIOD * periods).as_secs_f64()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn cpu_quotas_hold() {
    play();
    const TEST: &str = "time::cpu_quotas_hold";
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
        // A busy host may need a while to give so much.
        let mut most: f64 = 0.0;
        for _ in 0..30 {
            let (begun, before) = (Instant::now(), usage(&free));
            std::thread::sleep(PERIOD * 10);
            most = most.max((usage(&free) - before).as_secs_f64() / begun.elapsed().as_secs_f64());
            if most > 0.28 {
                break;
            }
        }
        assert!(most > 0.28, "unlimited it got {most:.3}: this shows nothing");

        let leaf = ground.leaf("leaf", &limits);
        leaf.adopt(spin.pid()).unwrap();
        // A busy host may give less than the quota for a while, never more: all windows count for the upper bound, the
        // best one for the lower.
        let mut windows = Vec::new();
        for _ in 0..15 {
            windows.push(used(&leaf));
            if windows.iter().any(|used| *used >= 0.22) {
                break;
            }
        }
        println!("{TEST}: {}: {most:.3} free, then {windows:.3?} of 0.25", ground.version);
        assert!(windows.iter().all(|used| *used <= 0.28), "{windows:.3?}");
        assert!(windows.iter().any(|used| *used >= 0.22), "{windows:.3?}");
        let throttling = leaf.stats().unwrap().throttling.unwrap();
        assert!(throttling.throttled_periods > 0, "{throttling:?}");
        assert!(throttling.throttled > Duration::ZERO);
    }
}

//! Many at once, and the hierarchy is as it was.

use std::collections::BTreeMap;
use std::fs;

use jail_cgroup::Limits;
use testkit::HostState;

use crate::support::{Actor, FOREVER, Ground, play};

const LEAVES: usize = 200;
const THREADS: usize = 8;

/// What every group passes on, by directory, of this test's parent and of the tops: what a leaf could change.
fn passed_on(ground: &Ground) -> BTreeMap<String, String> {
    let tops = testkit::hierarchies().into_iter();
    tops.chain(ground.dirs())
        .filter_map(|dir| {
            let text = fs::read_to_string(dir.join("cgroup.subtree_control")).ok()?;
            Some((dir.display().to_string(), text))
        })
        .collect()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn two_hundred_leaves_from_eight_threads_twice_over() {
    play();
    const TEST: &str = "crowd::two_hundred_leaves_from_eight_threads_twice_over";
    let state = HostState::snapshot();
    for ground in Ground::each(TEST, &Limits::new()) {
        // The first leaf of a machine's life has controllers enabled at the top; that is meant to stay.
        ground.leaf("first", &Limits::new()).remove().unwrap();
        let before = passed_on(&ground);
        for round in 0..2 {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    let ground = &ground;
                    scope.spawn(move || {
                        for index in (thread..LEAVES).step_by(THREADS) {
                            one(ground, TEST, &format!("leaf-{index}"));
                        }
                    });
                }
            });
            assert!(ground.dirs().is_empty(), "round {round}: {:?}", ground.dirs());
            assert_eq!(passed_on(&ground), before, "round {round}");
        }
    }
    state.assert_unchanged();
}

fn one(ground: &Ground, test: &str, name: &str) {
    let leaf = ground.leaf(name, &Limits::new());
    let mut idle = Actor::in_leaf(&leaf, test, "idle");
    assert!(leaf.contains(idle.pid()).unwrap());
    leaf.kill().unwrap();
    leaf.wait_empty(FOREVER).unwrap();
    // Not reaped yet: the dead do not hold a leaf.
    let report = leaf.remove().unwrap();
    let hierarchies = ground.plan(name, &Limits::new()).paths().count();
    assert!(report.removed.len() >= hierarchies, "{report:?}");
    assert_eq!(idle.wait(), Err(9));
}

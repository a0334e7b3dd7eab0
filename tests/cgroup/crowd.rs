//! Many leaves at once leave the hierarchy unchanged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jail_cgroup::Limits;
use testkit::HostState;

use crate::support::{Actor, FOREVER, Ground, play};

const LEAVES: usize = 200;
const THREADS: usize = 8;

/// Reads the files that a leaf could change, by directory. An empty file counts as a missing file: another test may enable
/// cpuset at the top, which adds empty files to every group.
fn hierarchy(ground: &Ground) -> BTreeMap<PathBuf, String> {
    let mut dirs = ground.dirs();
    let mut seen = BTreeMap::new();
    while let Some(dir) = dirs.pop() {
        let read = |file: &str| fs::read_to_string(dir.join(file)).unwrap_or_default();
        let files = ["cgroup.subtree_control", "cgroup.type", "cpuset.cpus", "cpuset.mems"];
        let set = files.map(read).into_iter().filter(|text| !text.trim().is_empty());
        seen.insert(dir.clone(), set.collect());
        let below = fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path());
        dirs.extend(below.filter(|path| path.is_dir()));
    }
    seen
}

/// Reads the controllers of these leaves that are enabled at the top. Other tests enable others.
fn passed_on(ground: &Ground) -> Vec<(PathBuf, String)> {
    let words = |top: &Path| fs::read_to_string(top.join("cgroup.subtree_control")).ok();
    let ours = |word: &&str| matches!(*word, "memory" | "pids");
    testkit::hierarchies()
        .into_iter()
        .filter(|top| ground.plan("x", &Limits::new()).paths().any(|path| path.starts_with(top)))
        .filter_map(|top| {
            let words = words(&top)?;
            Some((top, words.split_whitespace().filter(ours).collect()))
        })
        .collect()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn crowds_leave_no_trace() {
    play();
    const TEST: &str = "crowd::crowds_leave_no_trace";
    let state = HostState::snapshot();
    for ground in Ground::each(TEST, &Limits::new()) {
        // Below an operator's parent, which has had a leaf: the first of a machine's life has controllers enabled all the
        // way down, and that is meant to stay.
        for path in ground.plan("first", &Limits::new()).paths() {
            fs::create_dir(path.parent().unwrap()).unwrap();
        }
        ground.leaf("first", &Limits::new()).remove().unwrap();
        let before = (hierarchy(&ground), passed_on(&ground));
        assert!(!before.0.is_empty());
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
            assert_eq!((hierarchy(&ground), passed_on(&ground)), before, "round {round}");
        }
    }
    // The grounds, with the operator's parents, are gone by now.
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
    assert!(
        report.removed.iter().eq(&ground.plan(name, &Limits::new()).paths().collect::<Vec<_>>())
    );
    assert_eq!(idle.wait(), Err(9));
}

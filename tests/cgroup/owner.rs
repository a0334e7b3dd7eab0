//! The owner's mark of a leaf (docs/threat-model.md, row 49).

use std::fs;
use std::path::Path;

use jail_cgroup::{ErrorKind, Leaf, LeafPlan, Limits};
use rustix::fs::XattrFlags;

use crate::support::{Actor, FOREVER, Ground, play};

const ATTRIBUTE: &str = "trusted.jail-cgroup.leaf";

fn owned(ground: &Ground, name: &str, owner: &str) -> LeafPlan {
    ground.plan(name, &Limits::new()).owned_by(owner).unwrap()
}

fn mark(dir: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; 512];
    let length = rustix::fs::getxattr(dir, ATTRIBUTE, value.as_mut_slice()).ok()?;
    value.truncate(length);
    Some(value)
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_directory_carries_the_mark() {
    const TEST: &str = "owner::each_directory_carries_the_mark";
    for ground in Ground::each(TEST, &Limits::new()) {
        let longest = "x".repeat(512);
        let plan = owned(&ground, "leaf", &longest);
        let leaf = plan.create().unwrap();
        assert_eq!(leaf.owner(), Some(&*longest));
        for path in plan.paths() {
            assert_eq!(mark(&path).as_deref(), Some(longest.as_bytes()), "{path:?}");
        }
        let unowned = ground.leaf("unowned", &Limits::new());
        assert!(unowned.paths().all(|path| mark(&path).is_some_and(|mark| mark.is_empty())));
        assert_eq!(unowned.owner(), None);
        plan.id().open(&ground.host).unwrap().unwrap().remove().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_49_refuses_another_owners_leaf() {
    play();
    const TEST: &str = "owner::row_49_refuses_another_owners_leaf";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = owned(&ground, "leaf", "one").create().unwrap();
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        let other = owned(&ground, "leaf", "two");
        let error = other.id().open(&ground.host).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        let text = error.to_string();
        assert!(text.contains("\"one\"") && text.contains("\"two\""), "{text}");
        let error = other.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("\"one\""), "{error}");
        assert!(idle.is_alive());
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
        // Empty, it is still the owner's.
        for plan in [&other, &ground.plan("leaf", &Limits::new())] {
            let error = plan.create().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy);
            assert!(error.to_string().contains("\"one\""), "{error}");
        }
        leaf.remove().unwrap();
        other.create().unwrap().remove().unwrap();
    }
}

/// A leaf below another leaf would count against that leaf's limits, and be killed with it.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_90_a_leaf_is_no_parent() {
    play();
    const TEST: &str = "owner::row_90_a_leaf_is_no_parent";
    for ground in Ground::each(TEST, &Limits::new()) {
        for owner in [Some("one"), None] {
            let victim = match owner {
                Some(owner) => owned(&ground, "leaf", owner),
                None => ground.plan("leaf", &Limits::new()),
            };
            let parent = format!("{}/leaf/deep", ground.parent);
            let (host, version) = (&ground.host, ground.version);
            let below = LeafPlan::new(host, version, &parent, "below", &Limits::new()).unwrap();
            let below = below.owned_by("two").unwrap();
            let leaf = victim.create().unwrap();
            let error = below.create().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            assert!(error.to_string().contains("itself a leaf"), "{error}");
            // Nothing was made on the way.
            leaf.remove().unwrap();
            // In the other order, the second one is refused while the first one lives.
            let leaf = below.create().unwrap();
            let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
            let error = victim.create().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
            assert!(idle.is_alive());
            leaf.kill().unwrap();
            leaf.wait_empty(FOREVER).unwrap();
            assert_eq!(idle.wait(), Err(9));
            leaf.remove().unwrap();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_99_an_operators_group_stays() {
    play();
    const TEST: &str = "owner::row_99_an_operators_group_stays";
    for ground in Ground::each(TEST, &Limits::new()) {
        let plan = owned(&ground, "leaf", "one");
        for path in plan.paths() {
            fs::create_dir_all(path.join("below")).unwrap();
        }
        let error = plan.create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy, "{error}");
        // Nor is it removed by the clean-up that follows.
        assert!(plan.id().open(&ground.host).unwrap().is_none());
        assert!(plan.paths().all(|path| path.join("below").is_dir()));
        for path in plan.paths() {
            fs::remove_dir(path.join("below")).unwrap();
        }
        // As a creation that was cut short leaves it.
        plan.create().unwrap().remove().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_leaf_without_a_mark_is_refused() {
    play();
    const TEST: &str = "owner::a_leaf_without_a_mark_is_refused";
    for ground in Ground::each(TEST, &Limits::new()) {
        let unowned = ground.leaf("leaf", &Limits::new());
        let id = owned(&ground, "leaf", "one").id();
        let error = id.open(&ground.host).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Foreign);
        assert!(error.to_string().contains("no owner"), "{error}");
        unowned.remove().unwrap();
        // Made by another program.
        let plan = owned(&ground, "leaf", "one");
        for path in plan.paths() {
            fs::create_dir_all(path).unwrap();
        }
        let stranger = Actor::new(TEST, "idle");
        let dir = plan.paths().next().unwrap();
        fs::write(dir.join("cgroup.procs"), stranger.pid().to_string()).unwrap();
        assert_eq!(id.open(&ground.host).unwrap_err().kind(), ErrorKind::Foreign);
    }
}

/// A launcher that is killed between mkdir(2) and setxattr(2) leaves a directory without a mark.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_creation_cut_short_is_removed() {
    play();
    const TEST: &str = "owner::a_creation_cut_short_is_removed";
    for ground in Ground::each(TEST, &Limits::new()) {
        let plan = owned(&ground, "leaf", "one");
        let last = plan.paths().last().unwrap();
        drop(plan.create().unwrap());
        rustix::fs::removexattr(&last, ATTRIBUTE).unwrap();
        let open = || plan.id().open(&ground.host).unwrap().unwrap();
        let cut_short = open();
        // Killing does not reach a directory that nobody has claimed.
        cut_short.kill().unwrap();
        let rival = open();
        rustix::fs::setxattr(&last, ATTRIBUTE, b"two", XattrFlags::CREATE).unwrap();
        for refused in [cut_short.kill(), rival.remove().map(drop)] {
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::Foreign);
        }
        rustix::fs::removexattr(&last, ATTRIBUTE).unwrap();
        open().remove().unwrap();
        assert!(ground.dirs().is_empty());
        plan.create().unwrap().remove().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn leaves_are_found_by_owner() {
    const TEST: &str = "owner::leaves_are_found_by_owner";
    let grounds = Ground::each(TEST, &Limits::new());
    // Two tests may run at once: the mark is this one's.
    let (one, two) = (testkit::unique("one"), testkit::unique("two"));
    let mut made: Vec<Leaf> = Vec::new();
    let mut others = Vec::new();
    for ground in &grounds {
        made.push(owned(ground, "leaf", &one).create().unwrap());
        let deep = format!("{}/deep/er", ground.parent);
        let plan = |name| {
            LeafPlan::new(&ground.host, ground.version, &deep, name, &Limits::new()).unwrap()
        };
        made.push(plan("leaf").owned_by(&one).unwrap().create().unwrap());
        others.push(plan("not").owned_by(&one).unwrap().create().unwrap());
        others.push(owned(ground, "leaf-2", &two).create().unwrap());
    }
    let paths = |leaves: &[Leaf]| {
        let mut all: Vec<Vec<_>> = Vec::new();
        for leaf in leaves {
            all.push(leaf.paths().collect());
            all.last_mut().unwrap().sort();
        }
        all.sort();
        all
    };
    let found = grounds[0].host.leaves_owned_by(&one, "leaf").unwrap();
    assert!(found.unsearched.is_empty(), "{:?}", found.unsearched);
    assert_eq!(paths(&found.leaves), paths(&made));
    for leaf in found.leaves {
        assert_eq!(leaf.owner(), Some(&*one));
        // Written down, it is found again.
        let again = leaf.id().open(&grounds[0].host).unwrap().unwrap();
        assert_eq!(again.paths().count(), leaf.paths().count());
        leaf.remove().unwrap();
    }
    assert!(grounds[0].host.leaves_owned_by(&one, "leaf").unwrap().leaves.is_empty());
    assert_eq!(
        grounds[0].host.leaves_owned_by(&two, "leaf-2").unwrap().leaves.len(),
        grounds.len()
    );
}

//! Limits change while processes run, and all of them or none.

use jail_cgroup::{ByteSize, ErrorKind, IoLimit, Limit, Limits};
use testkit::Scratch;

use crate::io::{disk, whole};
use crate::support::{Actor, Ground, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_change_while_processes_run() {
    play();
    const TEST: &str = "update::limits_change_while_processes_run";
    let before = Limits::new().memory_max(ByteSize::mib(64)).cpus(0.5).pids_max(42);
    for ground in Ground::each(TEST, &before) {
        let leaf = ground.leaf("leaf", &before);
        let _process = Actor::in_leaf(&leaf, TEST, "idle");
        let after = Limits::new().memory_max(ByteSize::mib(128)).cpus(2.0).pids_max(43);
        // As another process has the leaf.
        let leaf = leaf.id().open(&ground.host).unwrap().unwrap();
        let changes = leaf.update(&ground.host, &after).unwrap();
        let of = |limit| changes.iter().rev().find(|change| change.limit == limit).unwrap();
        assert_eq!(of(Limit::MemoryMax).old, "67108864");
        assert_eq!((&of(Limit::PidsMax).old[..], &of(Limit::PidsMax).new[..]), ("42", "43"));
        for change in &changes {
            let kept = std::fs::read_to_string(&change.path).unwrap();
            assert_eq!(kept.trim(), change.new, "{change:?}");
        }
        // And back.
        let changes = leaf.update(&ground.host, &before).unwrap();
        assert_eq!(changes[0].new, "67108864", "{changes:?}");
    }
}

/// v1 refuses a limit of memory above that of memory and swap.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn swap_limits_grow_and_shrink() {
    const TEST: &str = "update::swap_limits_grow_and_shrink";
    let limits =
        |mib| Limits::new().memory_max(ByteSize::mib(mib)).memory_swap_max(ByteSize::mib(8));
    for ground in Ground::each(TEST, &limits(64)) {
        let leaf = match ground.plan("leaf", &limits(64)).create() {
            Ok(leaf) => leaf,
            // This kernel does not account swap.
            Err(error) if error.limit() == Some(Limit::MemorySwapMax) => {
                testkit::skip(TEST, &error.to_string());
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        for mib in [256, 64, 32, 512] {
            let changes = leaf.update(&ground.host, &limits(mib)).unwrap();
            assert_eq!(changes[0].new, (mib << 20).to_string(), "{changes:?}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_refused_limit_changes_nothing() {
    play();
    const TEST: &str = "update::a_refused_limit_changes_nothing";
    let scratch = Scratch::new("update");
    let Some(device) = disk(&scratch, TEST) else { return };
    let mib = ByteSize::mib;
    let before = Limits::new()
        .memory_max(mib(64))
        .cpus(0.5)
        .pids_max(42)
        .io(whole(&device).write_bps(mib(3)));
    for ground in Ground::each(TEST, &before) {
        let leaf = ground.leaf("leaf", &before);
        let _process = Actor::in_leaf(&leaf, TEST, "idle");
        let values = || {
            let effective = leaf.effective().unwrap();
            effective.into_iter().map(|one| (one.path, one.value)).collect::<Vec<_>>()
        };
        let old = values();
        let after = Limits::new()
            .memory_max(mib(128))
            .cpus(2.0)
            .pids_max(43)
            .io(whole(&device).write_bps(mib(5)))
            .io(IoLimit::new(4095, 1).write_bps(mib(5)));
        let error = leaf.update(&ground.host, &after).unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::Refused, Some(Limit::Io)), "{error}");
        assert_eq!(values(), old);
    }
}

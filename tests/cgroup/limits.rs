//! Limits are read back from the kernel.

use jail_cgroup::{
    ByteSize, CgroupVersion, Controller, EffectiveLimit, ErrorKind, Host, Leaf, LeafPlan, Limit,
    Limits,
};

use crate::support::Ground;

fn value(leaf: &Leaf, limit: Limit) -> EffectiveLimit {
    leaf.effective().unwrap().into_iter().find(|effective| effective.limit == limit).unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_are_read_back() {
    const TEST: &str = "limits::limits_are_read_back";
    let limits = Limits::new().memory_max(ByteSize::mib(64)).cpus(0.5).cpu_weight(200).pids_max(42);
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        let (quota, weight) = match ground.version {
            CgroupVersion::V1 => ("100000", "2048"),
            CgroupVersion::V2 => ("50000 100000", "200"),
        };
        assert_eq!(value(&leaf, Limit::MemoryMax).value, "67108864");
        assert_eq!(value(&leaf, Limit::Cpus).value, quota);
        assert_eq!(value(&leaf, Limit::CpuWeight).value, weight);
        assert_eq!(value(&leaf, Limit::PidsMax).value, "42");
        assert!(leaf.effective().unwrap().iter().all(|effective| !effective.is_rounded()));
        // Another process reads the same, and does not know what was asked for.
        let found = leaf.id().open(&ground.host).unwrap().unwrap();
        let found = value(&found, Limit::PidsMax);
        assert_eq!((found.value.as_str(), found.asked), ("42", None));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn rounding_is_reported() {
    const TEST: &str = "limits::rounding_is_reported";
    let limits = Limits::new().memory_max(ByteSize::bytes((64 << 20) + 5));
    for ground in Ground::each(TEST, &limits) {
        let memory = value(&ground.leaf("leaf", &limits), Limit::MemoryMax);
        assert_eq!(
            (memory.asked.as_deref(), memory.value.as_str()),
            (Some("67108869"), "67108864")
        );
        assert!(memory.is_rounded());
    }
}

/// An error names the missing limit and the version.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn missing_limits_are_named() {
    const TEST: &str = "limits::missing_limits_are_named";
    let mib = ByteSize::mib(1);
    for ground in Ground::each(TEST, &Limits::new()) {
        let plan = |limits: &Limits| {
            LeafPlan::new(&ground.host, ground.version, &ground.parent, "leaf", limits)
        };
        let only_v2 = [
            (Limit::MemoryHigh, Limits::new().memory_high(mib)),
            (Limit::OomGroup, Limits::new().oom_group(true)),
            (Limit::MemorySwapMax, Limits::new().memory_swap_max(mib)),
        ];
        for (limit, limits) in only_v2 {
            let has_memory = ground.host.usable(ground.version, Controller::Memory).is_ok();
            match plan(&limits) {
                Ok(_) => assert!(ground.version == CgroupVersion::V2 && has_memory, "{limit}"),
                Err(error) => {
                    assert_eq!(
                        (error.kind(), error.limit()),
                        (ErrorKind::Unsupported, Some(limit))
                    );
                    let text = error.to_string();
                    assert!(text.contains(&ground.version.to_string()), "{text}");
                    assert!(ground.version == CgroupVersion::V1 || !has_memory, "{text}");
                }
            }
        }
        // And what the host has not given to this version.
        let pids = Limits::new().pids_max(1);
        if let Err(error) = plan(&pids) {
            assert_eq!(error.limit(), Some(Limit::PidsMax));
            assert!(error.to_string().contains(&format!("pids of {}", ground.version)), "{error}");
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_of_v2_work() {
    const TEST: &str = "limits::limits_of_v2_work";
    let limits = Limits::new().memory_high(ByteSize::mib(32)).oom_group(true);
    for ground in Ground::each(TEST, &limits) {
        assert_eq!(ground.version, CgroupVersion::V2);
        let leaf = ground.leaf("leaf", &limits);
        assert_eq!(value(&leaf, Limit::MemoryHigh).value, "33554432");
        assert_eq!(value(&leaf, Limit::OomGroup).value, "1");
    }
}

/// v1 limits the sum of memory and swap, v2 swap alone; both kernels may be built without either.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn swap_is_limited_or_refused() {
    const TEST: &str = "limits::swap_is_limited_or_refused";
    let limits = Limits::new().memory_max(ByteSize::mib(64)).memory_swap_max(ByteSize::mib(16));
    for ground in Ground::each(TEST, &limits) {
        let has = match ground.version {
            CgroupVersion::V1 => ground
                .host
                .v1_mount(Controller::Memory)
                .unwrap()
                .path()
                .join("memory.memsw.limit_in_bytes")
                .exists(),
            // The root has none of v2's limits: a leaf tells.
            CgroupVersion::V2 => {
                let probe = ground.leaf("probe", &Limits::new().memory_max(ByteSize::mib(64)));
                let has = probe.paths().all(|path| path.join("memory.swap.max").exists());
                probe.remove().unwrap();
                has
            }
        };
        match ground.plan("leaf", &limits).create() {
            Ok(leaf) => {
                assert!(has);
                let (v1, v2) = ((80 << 20).to_string(), (16 << 20).to_string());
                let expected = if ground.version == CgroupVersion::V1 { v1 } else { v2 };
                assert_eq!(value(&leaf, Limit::MemorySwapMax).value, expected);
            }
            Err(error) => {
                assert!(!has, "{error}");
                assert_eq!(error.limit(), Some(Limit::MemorySwapMax));
                assert!(ground.dirs().is_empty());
            }
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn huge_pages_are_limited() {
    const TEST: &str = "limits::huge_pages_are_limited";
    let limits = Limits::new().hugetlb(ByteSize::mib(2), ByteSize::mib(8));
    for ground in Ground::each(TEST, &limits) {
        let leaf = ground.leaf("leaf", &limits);
        assert_eq!(value(&leaf, Limit::Hugetlb).value, "8388608");
        assert!(!value(&leaf, Limit::Hugetlb).is_rounded());
        // No part of a page is a page.
        let limits = Limits::new().hugetlb(ByteSize::mib(2), ByteSize::mib(9));
        let rounded = value(&ground.leaf("rounded", &limits), Limit::Hugetlb);
        assert_eq!((rounded.asked.as_deref(), &*rounded.value), (Some("9437184"), "8388608"));
        assert!(rounded.is_rounded());
    }
    // A size that no machine has pages of.
    let limits = Limits::new().hugetlb(ByteSize::gib(64), ByteSize::gib(64));
    for ground in Ground::each(TEST, &limits) {
        let error = ground.plan("leaf", &limits).create().unwrap_err();
        assert_eq!(error.limit(), Some(Limit::Hugetlb));
        assert!(error.to_string().contains("hugetlb.64GB"), "{error}");
    }
}

/// The version is chosen by what the limits need, and what was chosen can be made.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_picked_version_works() {
    let host = Host::discover().unwrap();
    let limits = Limits::new().memory_max(ByteSize::mib(64)).pids_max(8);
    for preferred in [CgroupVersion::V1, CgroupVersion::V2] {
        let version = match host.pick(preferred, &limits) {
            Ok(version) => version,
            Err(error) => {
                testkit::skip("limits::the_picked_version_works", &error.to_string());
                return;
            }
        };
        let ground = Ground { host: host.clone(), version, parent: testkit::unique("cg-pick") };
        ground.leaf("leaf", &limits).remove().unwrap();
    }
}

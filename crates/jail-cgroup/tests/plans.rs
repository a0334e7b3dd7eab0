//! Every limit in the files of each version, and in a launcher's settings.

use jail_cgroup::{
    ByteSize, CgroupVersion, Controller, CpuSet, ErrorKind, Host, HostTexts, IoLimit, LeafPlan,
    Limit, Limits,
};

fn host(mountinfo: &str, controllers: &str) -> Host {
    Host::from_texts(&HostTexts {
        mountinfo: mountinfo.as_bytes(),
        controllers,
        nodes: &[(0, "0-1"), (1, "2-3"), (2, "")],
        ..HostTexts::default()
    })
}

fn v2() -> Host {
    host("1 1 0:1 / /cg rw - cgroup2 none rw", "cpu cpuset io memory pids hugetlb")
}

/// v1 with each controller mounted alone.
fn v1() -> Host {
    v1_of(&["cpu", "cpuacct", "cpuset", "memory", "pids", "blkio", "hugetlb", "freezer"])
}

fn v1_of(hierarchies: &[&str]) -> Host {
    let line = |list: &&str| format!("1 1 0:1 / /cg/{list} rw - cgroup none rw,{list}\n");
    host(&hierarchies.iter().map(line).collect::<String>(), "")
}

fn plan(host: &Host, version: CgroupVersion, limits: &Limits) -> LeafPlan {
    LeafPlan::new(host, version, "p", "l", limits).expect("these limits can be planned")
}

/// `file = value` of each write, below the leaf.
fn writes(host: &Host, version: CgroupVersion, limits: &Limits) -> Vec<String> {
    let plan = plan(host, version, limits);
    for write in plan.writes() {
        let dir = write.path.parent().expect("a file is in a directory");
        assert!(dir.ends_with("p/l") && write.path.ends_with(&write.file), "{write}");
    }
    plan.writes().iter().map(|write| format!("{} = {}", write.file, write.value)).collect()
}

fn settings(host: &Host, version: CgroupVersion, limits: &Limits) -> Vec<String> {
    let settings = plan(host, version, limits).settings();
    settings.into_iter().map(|(file, value)| format!("{file}={value}")).collect()
}

fn set(text: &str) -> CpuSet {
    text.parse().expect("a good list")
}

#[test]
fn every_limit_on_both_versions() {
    let mib = ByteSize::mib;
    let disk = IoLimit::new(8, 0).read_bps(mib(1)).write_iops(20);
    let memory = Limits::new().memory_max(mib(1));
    let cases: &[(Limits, &[&str], &[&str])] = &[
        (Limits::new(), &[], &[]),
        (memory.clone(), &["memory.max = 1048576"], &["memory.limit_in_bytes = 1048576"]),
        (
            memory.memory_swap_max(mib(2)),
            &["memory.max = 1048576", "memory.swap.max = 2097152"],
            &["memory.limit_in_bytes = 1048576", "memory.memsw.limit_in_bytes = 3145728"],
        ),
        (Limits::new().oom_group(false), &["memory.oom.group = 0"], &[]),
        (
            Limits::new().cpus(0.25),
            &["cpu.max = 25000 100000"],
            &["cpu.cfs_period_us = 100000", "cpu.cfs_quota_us = 25000"],
        ),
        (
            Limits::new().cpus(2.0),
            &["cpu.max = 200000 100000"],
            &["cpu.cfs_period_us = 100000", "cpu.cfs_quota_us = 200000"],
        ),
        (Limits::new().cpu_weight(100), &["cpu.weight = 100"], &["cpu.shares = 1024"]),
        (Limits::new().cpu_weight(1), &["cpu.weight = 1"], &["cpu.shares = 10"]),
        (
            Limits::new().cpuset_cpus(set("0,1,3")).cpuset_mems(set("0")),
            &["cpuset.mems = 0", "cpuset.cpus = 0-1,3"],
            &["cpuset.mems = 0", "cpuset.cpus = 0-1,3"],
        ),
        (
            Limits::new().numa_node(1),
            &["cpuset.mems = 1", "cpuset.cpus = 2-3"],
            &["cpuset.mems = 1", "cpuset.cpus = 2-3"],
        ),
        (
            Limits::new().numa_node(1).cpuset_cpus(set("3")),
            &["cpuset.mems = 1", "cpuset.cpus = 3"],
            &["cpuset.mems = 1", "cpuset.cpus = 3"],
        ),
        (Limits::new().pids_max(64), &["pids.max = 64"], &["pids.max = 64"]),
        (
            Limits::new().io(disk),
            &["io.max = 8:0 rbps=1048576 wiops=20"],
            &[
                "blkio.throttle.read_bps_device = 8:0 1048576",
                "blkio.throttle.write_iops_device = 8:0 20",
            ],
        ),
        (
            Limits::new().hugetlb(mib(2), mib(64)).hugetlb(ByteSize::gib(1), ByteSize::gib(1)),
            &["hugetlb.2MB.max = 67108864", "hugetlb.1GB.max = 1073741824"],
            &["hugetlb.2MB.limit_in_bytes = 67108864", "hugetlb.1GB.limit_in_bytes = 1073741824"],
        ),
    ];
    for (limits, on_v2, on_v1) in cases {
        assert_eq!(writes(&v2(), CgroupVersion::V2, limits), *on_v2, "{limits:?}");
        assert_eq!(writes(&v1(), CgroupVersion::V1, limits), *on_v1, "{limits:?}");
    }
    let high = Limits::new().memory_high(mib(1)).oom_group(true);
    assert_eq!(
        writes(&v2(), CgroupVersion::V2, &high),
        ["memory.high = 1048576", "memory.oom.group = 1"]
    );
}

#[test]
fn limits_that_v1_lacks_are_named() {
    let mib = ByteSize::mib(1);
    for (limits, limit) in [
        (Limits::new().memory_high(mib), Limit::MemoryHigh),
        (Limits::new().oom_group(true), Limit::OomGroup),
        (Limits::new().memory_swap_max(mib), Limit::MemorySwapMax),
    ] {
        let error = LeafPlan::new(&v1(), CgroupVersion::V1, "p", "l", &limits).unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::Unsupported, Some(limit)));
        assert!(error.to_string().contains("v1"), "{error}");
    }
}

#[test]
fn invalid_limits_are_named() {
    let mib = ByteSize::mib(1);
    let disk = || IoLimit::new(8, 0);
    for (limits, limit) in [
        (Limits::new().memory_max(ByteSize::bytes(0)), Limit::MemoryMax),
        (Limits::new().memory_high(ByteSize::bytes(0)), Limit::MemoryHigh),
        (Limits::new().cpus(0.0), Limit::Cpus),
        (Limits::new().cpus(0.009), Limit::Cpus),
        (Limits::new().cpus(-1.0), Limit::Cpus),
        (Limits::new().cpus(f64::NAN), Limit::Cpus),
        (Limits::new().cpus(f64::INFINITY), Limit::Cpus),
        (Limits::new().cpu_weight(0), Limit::CpuWeight),
        (Limits::new().cpu_weight(10_001), Limit::CpuWeight),
        (Limits::new().cpuset_cpus(set("")), Limit::CpusetCpus),
        (Limits::new().cpuset_mems(set("")), Limit::CpusetMems),
        (Limits::new().numa_node(1).cpuset_mems(set("0")), Limit::NumaNode),
        (Limits::new().pids_max(0), Limit::PidsMax),
        (Limits::new().pids_max(4_194_305), Limit::PidsMax),
        (Limits::new().io(disk()), Limit::Io),
        (Limits::new().io(disk().read_iops(0)), Limit::Io),
        (Limits::new().io(disk().read_iops(1 << 32)), Limit::Io),
        (Limits::new().io(disk().read_iops(1)).io(disk().write_iops(1)), Limit::Io),
        (Limits::new().hugetlb(ByteSize::bytes(3000), mib), Limit::Hugetlb),
        (Limits::new().hugetlb(ByteSize::bytes(0), mib), Limit::Hugetlb),
        (Limits::new().hugetlb(mib, mib).hugetlb(mib, mib), Limit::Hugetlb),
    ] {
        for (host, version) in [(v1(), CgroupVersion::V1), (v2(), CgroupVersion::V2)] {
            let error = LeafPlan::new(&host, version, "p", "l", &limits).unwrap_err();
            assert_eq!((error.kind(), error.limit()), (ErrorKind::InvalidInput, Some(limit)));
            assert!(error.to_string().contains(limit.name()), "{error}");
        }
    }
}

#[test]
fn a_node_may_lack_cpus() {
    let limits = Limits::new().numa_node(2);
    let error = LeafPlan::new(&v2(), CgroupVersion::V2, "p", "l", &limits).unwrap_err();
    assert_eq!((error.kind(), error.limit()), (ErrorKind::Unsupported, Some(Limit::NumaNode)));
    let limits = limits.cpuset_cpus(set("0"));
    assert_eq!(writes(&v2(), CgroupVersion::V2, &limits), ["cpuset.mems = 2", "cpuset.cpus = 0"]);
}

#[test]
fn a_missing_controller_is_named() {
    let host = host("1 1 0:1 / /cg rw - cgroup2 none rw", "memory");
    let limits = Limits::new().memory_max(ByteSize::mib(1)).pids_max(1);
    let error = LeafPlan::new(&host, CgroupVersion::V2, "p", "l", &limits).unwrap_err();
    assert_eq!((error.kind(), error.limit()), (ErrorKind::Unsupported, Some(Limit::PidsMax)));
    assert!(error.to_string().contains("pids_max needs the controller pids of v2"), "{error}");
}

#[test]
fn names_stay_below_the_mount() {
    for (parent, leaf) in [
        ("", "l"),
        ("/p", "l"),
        ("../p", "l"),
        ("p/../..", "l"),
        ("p", ".."),
        ("p", "a/b"),
        ("p", ""),
    ] {
        let error =
            LeafPlan::new(&v2(), CgroupVersion::V2, parent, leaf, &Limits::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{parent} {leaf}");
    }
}

/// The official jailer fills each file from its parent first (`crates/jail-cgroup/src/plan/v1.rs` says what that rules out);
/// `tests/cgroup/joined_by_settings.rs` does as it does, on a real hierarchy.
#[test]
fn v1_settings_join_each_hierarchy() {
    assert_eq!(
        settings(&v1(), CgroupVersion::V1, &Limits::new()),
        ["freezer.state=THAWED", "pids.max=max", "memory.limit_in_bytes=-1"]
    );
    let all = Limits::new()
        .memory_max(ByteSize::mib(1))
        .memory_swap_max(ByteSize::bytes(0))
        .cpus(0.5)
        .pids_max(9)
        .numa_node(0)
        .io(IoLimit::new(8, 0).read_iops(5));
    assert_eq!(
        settings(&v1(), CgroupVersion::V1, &all),
        [
            "cpuset.mems=0",
            "cpuset.cpus=0-1",
            "memory.memsw.limit_in_bytes=1048576",
            "cpu.cfs_quota_us=50000",
            "pids.max=9",
            "freezer.state=THAWED",
        ]
    );
    // Mounted together, one setting is enough for both.
    let together = v1_of(&["cpu,cpuacct", "freezer"]);
    assert_eq!(
        settings(&together, CgroupVersion::V1, &Limits::new()),
        ["freezer.state=THAWED", "cpu.shares=1024"]
    );
    assert_eq!(
        settings(&together, CgroupVersion::V1, &Limits::new().cpu_weight(50)),
        ["cpu.shares=512", "freezer.state=THAWED"]
    );
}

#[test]
fn v2_settings_have_no_equals_sign() {
    let limits = Limits::new().pids_max(9).io(IoLimit::new(8, 0).read_iops(5));
    assert_eq!(settings(&v2(), CgroupVersion::V2, &limits), ["pids.max=9"]);
    assert_eq!(settings(&v2(), CgroupVersion::V2, &Limits::new()), ["pids.max=max"]);
    let bare = host("1 1 0:1 / /cg rw - cgroup2 none rw", "");
    assert_eq!(settings(&bare, CgroupVersion::V2, &Limits::new()), [""; 0]);
}

#[test]
fn v1_leaves_cover_limits_and_accounting() {
    let paths = |limits| -> Vec<_> {
        let plan = plan(&v1(), CgroupVersion::V1, &limits);
        plan.paths().map(|path| path.display().to_string()).collect()
    };
    let always = ["/cg/freezer/p/l", "/cg/pids/p/l", "/cg/memory/p/l", "/cg/cpuacct/p/l"];
    assert_eq!(paths(Limits::new()), always);
    let with_cpus = paths(Limits::new().cpus(1.0));
    assert_eq!(with_cpus.len(), 5);
    assert!(with_cpus.contains(&"/cg/cpu/p/l".to_owned()));
}

#[test]
fn a_limit_has_one_controller() {
    let limits = Limits::new().pids_max(1).cpus(1.0);
    let controllers: Vec<_> = plan(&v2(), CgroupVersion::V2, &limits)
        .writes()
        .iter()
        .map(|write| (write.limit, write.controller))
        .collect();
    assert_eq!(controllers, [(Limit::Cpus, Controller::Cpu), (Limit::PidsMax, Controller::Pids)]);
}

#[cfg(feature = "serde")]
mod serialised {
    use super::*;

    #[test]
    fn plans_and_limits_round_trip() {
        let limits = Limits::new()
            .memory_max(ByteSize::mib(1))
            .cpus(0.3)
            .cpuset_cpus(set("0-1"))
            .io(IoLimit::new(8, 0).read_iops(5))
            .hugetlb(ByteSize::mib(2), ByteSize::mib(4));
        let text = serde_json::to_string(&limits).unwrap();
        assert_eq!(serde_json::from_str::<Limits>(&text).unwrap(), limits);
        for (host, version) in [(v1(), CgroupVersion::V1), (v2(), CgroupVersion::V2)] {
            let plan = plan(&host, version, &limits);
            let text = serde_json::to_string(&plan).unwrap();
            assert_eq!(serde_json::from_str::<LeafPlan>(&text).unwrap(), plan);
            let text = serde_json::to_string(&plan.id()).unwrap();
            assert_eq!(serde_json::from_str::<jail_cgroup::LeafId>(&text).unwrap(), plan.id());
        }
    }

    #[test]
    fn the_owner_is_recorded() {
        let unowned = plan(&v2(), CgroupVersion::V2, &Limits::new());
        let owned = unowned.clone().owned_by("/srv/jail a").unwrap();
        let text = serde_json::to_string(&owned.id()).unwrap();
        let read: jail_cgroup::LeafId = serde_json::from_str(&text).unwrap();
        assert_eq!((read.owner(), &read), (Some("/srv/jail a"), &owned.id()));
        assert_ne!(read, unowned.id());
        let long = text.replace("/srv/jail a", &"x".repeat(513));
        assert!(serde_json::from_str::<jail_cgroup::LeafId>(&long).is_err());
    }

    #[test]
    fn ids_stay_below_the_mount() {
        let id = plan(&v2(), CgroupVersion::V2, &Limits::new()).id();
        let text = serde_json::to_string(&id).unwrap();
        let moved = text.replace("p/l", "../l");
        assert_ne!(moved, text);
        let error = serde_json::from_str::<jail_cgroup::LeafId>(&moved).unwrap_err();
        assert!(error.to_string().contains("../l"), "{error}");
    }

    #[test]
    fn limits_are_plain_json() {
        let limits: Limits = serde_json::from_str(r#"{"memory_max":1024,"cpus":0.5}"#).unwrap();
        assert_eq!(limits, Limits::new().memory_max(ByteSize::kib(1)).cpus(0.5));
        assert!(serde_json::from_str::<Limits>(r#"{"memory_maxx":1024}"#).is_err());
        assert!(serde_json::from_str::<Limits>(r#"{"cpuset_cpus":"3-1"}"#).is_err());
    }
}

//! Discovery against the mountinfo and cgroup texts of real hosts, and against anything at all.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::path::Path;

use jail_cgroup::Controller::{Cpu, Cpuacct, Cpuset, Freezer, Hugetlb, Io, Memory, Pids};
use jail_cgroup::{
    ByteSize, CgroupVersion, Controller, ErrorKind, Host, HostLayout, HostTexts, Limit, Limits,
    Mount, Unavailable,
};
use proptest::prelude::*;

macro_rules! host {
    ($name:literal $(, $field:ident: $value:expr)*) => {{
        let mut texts = HostTexts::default();
        texts.mountinfo = include_bytes!(concat!("hosts/", $name, ".mountinfo"));
        texts.self_cgroup = include_bytes!(concat!("hosts/", $name, ".cgroup"));
        texts.nodes = &[(0, "0-1"), (1, "2-3")];
        $(texts.$field = $value;)*
        Host::from_texts(&texts)
    }};
}

/// Returns the usable controllers, of the controllers that limits need.
fn usable(host: &Host, version: CgroupVersion) -> Vec<Controller> {
    [Cpu, Cpuacct, Cpuset, Memory, Pids, Io, Hugetlb, Freezer]
        .into_iter()
        .filter(|controller| host.usable(version, *controller).is_ok())
        .collect()
}

fn v2_point(host: &Host) -> &Path {
    host.v2_mount().unwrap().path()
}

fn v1_point(host: &Host, controller: Controller) -> &Path {
    host.v1_mount(controller).unwrap().path()
}

#[test]
fn debian_12_is_v2() {
    let host = host!("debian-12", controllers: "cpuset cpu io memory hugetlb pids rdma misc\n");
    assert_eq!(host.layout(), HostLayout::V2);
    assert_eq!(v2_point(&host), Path::new("/sys/fs/cgroup"));
    assert_eq!(
        usable(&host, CgroupVersion::V2),
        [Cpu, Cpuacct, Cpuset, Memory, Pids, Io, Hugetlb, Freezer]
    );
    assert_eq!(usable(&host, CgroupVersion::V1), []);
    assert_eq!(host.usable(CgroupVersion::V1, Memory), Err(Unavailable::BoundToV2));
    assert_eq!(host.usable(CgroupVersion::V1, Freezer), Err(Unavailable::NotMounted));
    assert_eq!(host.usable(CgroupVersion::V2, Controller::NetCls), Err(Unavailable::NotOffered));
    assert_eq!(host.pick(CgroupVersion::V1, &Limits::new()).unwrap(), CgroupVersion::V2);
}

#[test]
fn ubuntu_20_04_is_hybrid() {
    let host = host!("ubuntu-20.04");
    assert_eq!(host.layout(), HostLayout::Hybrid);
    assert_eq!(v2_point(&host), Path::new("/sys/fs/cgroup/unified"));
    let together = Path::new("/sys/fs/cgroup/cpu,cpuacct");
    assert_eq!((v1_point(&host, Cpu), v1_point(&host, Cpuacct)), (together, together));
    assert_eq!(v1_point(&host, Io), Path::new("/sys/fs/cgroup/blkio"));
    assert_eq!(usable(&host, CgroupVersion::V2), [Cpuacct, Freezer]);
    assert_eq!(host.usable(CgroupVersion::V2, Memory), Err(Unavailable::BoundToV1));
    assert_eq!(usable(&host, CgroupVersion::V1).len(), 8);

    // Nothing to limit: v2 does. Something: only v1 can.
    assert_eq!(host.pick(CgroupVersion::V2, &Limits::new()).unwrap(), CgroupVersion::V2);
    let limits = Limits::new().memory_max(ByteSize::mib(64)).numa_node(1);
    assert_eq!(host.pick(CgroupVersion::V2, &limits).unwrap(), CgroupVersion::V1);

    // What v1 lacks cannot be had at all, and each version says why.
    let error = host.pick(CgroupVersion::V2, &limits.memory_high(ByteSize::mib(32))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let text = error.to_string();
    assert!(
        text.contains("numa_node needs the controller cpuset of v2: a v1 hierarchy has it"),
        "{text}"
    );
    assert!(text.contains("memory_high v1 has no limit that slows"), "{text}");
}

#[test]
fn centos_7_is_v1() {
    let host = host!("centos-7");
    assert_eq!(host.layout(), HostLayout::V1);
    assert!(host.v2_mount().is_none());
    assert_eq!(usable(&host, CgroupVersion::V1).len(), 8);
    assert_eq!(host.usable(CgroupVersion::V2, Pids), Err(Unavailable::NotMounted));
    assert_eq!(host.pick(CgroupVersion::V2, &Limits::new()).unwrap(), CgroupVersion::V1);
}

#[test]
fn controllers_are_mounted_alone() {
    let host = host!("bare-hybrid");
    assert_eq!(host.layout(), HostLayout::Hybrid);
    assert_eq!(v1_point(&host, Cpuacct), Path::new("/sys/fs/cgroup/cpuacct"));
    assert_eq!(host.usable(CgroupVersion::V1, Hugetlb), Err(Unavailable::NotMounted));
    assert_eq!(host.usable(CgroupVersion::V2, Hugetlb), Err(Unavailable::NotOffered));
}

#[test]
fn docker_containers_are_read_only() {
    let host = host!("docker-v2", controllers: "cpuset cpu io memory pids", nested: true);
    assert_eq!(host.layout(), HostLayout::V2);
    assert_eq!(host.usable(CgroupVersion::V2, Memory), Err(Unavailable::ReadOnly));
    let error = host.pick(CgroupVersion::V2, &Limits::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);

    let host = host!("docker-v1");
    assert_eq!(host.layout(), HostLayout::V1);
    assert_eq!(host.usable(CgroupVersion::V1, Memory), Err(Unavailable::ReadOnly));
    assert_eq!(host.v1_mount(Memory).unwrap().root(), Path::new("/docker/9c8e1f"));
}

#[test]
fn privileged_containers_have_a_part() {
    let host = host!("privileged-v1");
    assert_eq!(usable(&host, CgroupVersion::V1), [Memory, Pids, Freezer]);
    assert_eq!(
        host.pick(CgroupVersion::V1, &Limits::new().pids_max(1)).unwrap(),
        CgroupVersion::V1
    );
    let error = host.pick(CgroupVersion::V1, &Limits::new().cpus(1.0)).unwrap_err();
    assert!(error.to_string().contains("cpus needs the controller cpu of v1"), "{error}");
}

/// A systemd in a container: its own part read-write, the host's whole hierarchy to look at.
#[test]
fn nested_systemd_is_delegated() {
    let host = host!("nested-systemd",
        controllers: "cpu memory pids", subtree_control: "memory pids", nested: true, occupied: true);
    assert_eq!(v2_point(&host), Path::new("/sys/fs/cgroup"));
    assert_eq!(host.mounts().len(), 2);
    assert_eq!(host.usable(CgroupVersion::V2, Memory), Ok(()));
    assert_eq!(host.usable(CgroupVersion::V2, Cpu), Err(Unavailable::InternalProcesses));
    assert_eq!(host.usable(CgroupVersion::V2, Io), Err(Unavailable::NotDelegated));
    let error = host.pick(CgroupVersion::V2, &Limits::new().cpus(0.5)).unwrap_err();
    assert!(error.to_string().contains("cpus needs the controller cpu of v2"), "{error}");
}

#[test]
fn named_hierarchies_do_not_count() {
    let host = host!("legacy-named-only", controllers: "memory pids");
    assert_eq!(host.layout(), HostLayout::V2);
    assert_eq!(v2_point(&host), Path::new("/sys/fs/cgroup/unified"));
}

#[test]
fn escapes_are_decoded() {
    let host = host!("escapes-and-binds");
    let mounts: Vec<_> = host.mounts().iter().map(|mount| mount.path().to_owned()).collect();
    assert_eq!(
        mounts,
        [
            Path::new("/mnt/with space\\and\ttab"),
            Path::new("/mnt/read\nonly"),
            Path::new("/mnt/jobs"),
        ]
    );
    // A tmpfs that calls itself cgroup2 is none.
    assert_eq!(host.layout(), HostLayout::V1);
    assert_eq!(host.mounts()[0].root(), Path::new("/jobs/a b"));
    assert!(host.mounts()[1].is_read_only());
    assert_eq!(v1_point(&host, Pids), Path::new("/mnt/jobs"));
    assert!(host.v1_mount(Memory).is_none());
}

#[test]
fn hosts_may_lack_hierarchies() {
    let host = Host::from_texts(&HostTexts::default());
    assert_eq!(host.layout(), HostLayout::Absent);
    let error = host.pick(CgroupVersion::V2, &Limits::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.to_string().contains("no v2 hierarchy"), "{error}");
    assert!(error.to_string().contains("no v1 hierarchy"), "{error}");
}

#[test]
fn a_missing_node_is_named() {
    let host = host!("ubuntu-20.04");
    assert_eq!(host.node_cpus(1).unwrap().to_string(), "2-3");
    let error = host.pick(CgroupVersion::V1, &Limits::new().numa_node(7)).unwrap_err();
    assert!(error.to_string().contains("numa_node the host's nodes are 0-1"), "{error}");
}

#[test]
fn invalid_limits_are_refused_everywhere() {
    let host = host!("debian-12", controllers: "memory");
    let error = host.pick(CgroupVersion::V2, &Limits::new().pids_max(0)).unwrap_err();
    assert_eq!((error.kind(), error.limit()), (ErrorKind::InvalidInput, Some(Limit::PidsMax)));
}

/// Whatever was read, a leaf stays below a mount that the text named.
fn check_plans(host: &Host) {
    for version in [CgroupVersion::V1, CgroupVersion::V2] {
        let limits = Limits::new();
        let Ok(plan) = jail_cgroup::LeafPlan::new(host, version, "a/b", "leaf", &limits) else {
            continue;
        };
        for path in plan.paths() {
            let is_below =
                |mount: &Mount| path.strip_prefix(mount.path()) == Ok("a/b/leaf".as_ref());
            // Of mounts in one another any will do.
            assert!(host.mounts().iter().any(is_below), "{path:?}");
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        mountinfo in proptest::collection::vec(any::<u8>(), 0..300),
        self_cgroup in proptest::collection::vec(any::<u8>(), 0..100),
        controllers in ".*",
    ) {
        let texts = HostTexts {
            mountinfo: &mountinfo,
            self_cgroup: &self_cgroup,
            controllers: &controllers,
            ..HostTexts::default()
        };
        check_plans(&Host::from_texts(&texts));
    }

    #[test]
    fn similar_lines_never_panic(
        lines in proptest::collection::vec(
            "[0-9]{1,21} [0-9]{1,2} 0:[0-9]{1,2} [/.a-c\\\\0-9]{1,9} /[/.a-c\\\\0-9]{0,9} (rw|ro|)\
             ( shared:1| -)? - cgroup2? [a-z]{0,2} (rw|ro|memory|pids|freezer|,){0,4}", 0..6),
        occupied: bool, nested: bool,
    ) {
        let mountinfo = lines.join("\n");
        let texts = HostTexts {
            mountinfo: mountinfo.as_bytes(),
            self_cgroup: b"1:pids:/\n0::/x\n",
            controllers: "memory pids",
            occupied,
            nested,
            ..HostTexts::default()
        };
        check_plans(&Host::from_texts(&texts));
    }

    /// Real texts with a few bytes changed.
    #[test]
    fn damaged_texts_never_panic(at in proptest::collection::vec((any::<u16>(), any::<u8>()), 1..9)) {
        let mut mountinfo = include_bytes!("hosts/ubuntu-20.04.mountinfo").to_vec();
        for (index, byte) in at {
            let index = usize::from(index) % mountinfo.len();
            mountinfo[index] = byte;
        }
        check_plans(&Host::from_texts(&HostTexts { mountinfo: &mountinfo, ..HostTexts::default() }));
    }
}

//! Discovery of hierarchies.

use std::thread;

use jail_cgroup::{CgroupVersion, ErrorKind, Host, HostLayout, HostTexts, LeafPlan, Limits};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use testkit::{Scratch, Tmpfs};

use crate::support::{Actor, FOREVER, Ground, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn mounts_match_mountinfo() {
    let host = Host::discover().unwrap();
    let count = |fstype: &str| {
        testkit::mounts::all().into_iter().filter(|mount| mount.fstype == fstype).count()
    };
    println!("discovery: {} host: {:#?}", host.layout(), host.mounts());
    assert_eq!(host.mounts().len(), count("cgroup") + count("cgroup2"));
    assert_ne!(host.layout(), HostLayout::Absent);
    assert_eq!(host.v2_mount().is_some(), count("cgroup2") > 0);
}

/// Runs `work` in a new mount namespace, on a new thread.
fn aside(work: impl FnOnce() + Send + 'static) {
    let thread = thread::spawn(|| {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS).unwrap();
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_PRIVATE | MsFlags::MS_REC, None::<&str>)
            .unwrap();
        work();
    });
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn covered_mounts_do_not_count() {
    let scratch = Scratch::new("cover");
    let point = scratch.dir("v2");
    aside(move || {
        mount(Some("none"), &point, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        let here = |host: &Host| host.mounts().iter().any(|mount| mount.path() == point);
        let host = Host::discover().unwrap();
        assert!(here(&host));
        let _tmpfs = Tmpfs::mount(&point, "size=1m");
        assert!(!here(&Host::discover().unwrap()));

        // A leaf planned before that is neither found nor made in what lies above.
        let mountinfo = format!("1 1 0:1 / {} rw - cgroup2 none rw", point.display());
        let stale = Host::from_texts(&HostTexts {
            mountinfo: mountinfo.as_bytes(),
            ..HostTexts::default()
        });
        let plan =
            LeafPlan::new(&stale, CgroupVersion::V2, "parent", "leaf", &Limits::new()).unwrap();
        assert_eq!(plan.create().unwrap_err().kind(), ErrorKind::Unexpected);
        assert_eq!(plan.id().open(&stale).unwrap_err().kind(), ErrorKind::Unexpected);
        assert!(std::fs::read_dir(&point).unwrap().next().is_none());
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn read_only_mounts_are_reported() {
    let host = Host::discover().unwrap();
    let Some(point) = host.mounts().first().map(|mount| mount.path().to_owned()) else { panic!() };
    aside(move || {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(None::<&str>, &point, None::<&str>, flags, None::<&str>).unwrap();
        let host = Host::discover().unwrap();
        let mount = host.mounts().iter().find(|mount| mount.path() == point).unwrap();
        assert!(mount.is_read_only());
    });
}

/// As in a container: the hierarchies' mounts lie outside of what the process calls the root.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn cgroup_namespaces_manage_leaves() {
    play();
    const TEST: &str = "discovery::cgroup_namespaces_manage_leaves";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("outer", &Limits::new());
        let role = format!("namespaced {} {}", ground.parent, ground.version);
        let mut manager = Actor::in_leaf(&leaf, TEST, &role);
        manager.go();
        let root = manager.says("root");
        assert!(root.starts_with("/.."), "{root}");
        assert_eq!(manager.wait(), Ok(0));
    }
}

/// Returns true if a process of a cgroup namespace may move no process into or out of a group outside the namespace.
fn delegates_by_namespace(point: &std::path::Path) -> bool {
    let text = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut mounts = text.lines().filter(|line| line.split(' ').nth(4) == point.to_str());
    mounts.any(|line| line.ends_with("nsdelegate") || line.contains("nsdelegate,"))
}

/// Plays the process in the namespace.
pub(crate) fn namespaced() {
    unshare(CloneFlags::CLONE_NEWCGROUP).unwrap();
    let ground = Ground::of_role();
    let plan = ground.plan("inner", &Limits::new());
    let leaf = plan.create().unwrap();
    let mount = ground
        .host
        .mounts()
        .iter()
        .find(|mount| leaf.paths().any(|path| path.starts_with(mount.path())));
    println!("\nroot {}", mount.unwrap().root().display());

    let test = "discovery::cgroup_namespaces_manage_leaves";
    if ground.version == CgroupVersion::V2 && delegates_by_namespace(mount.unwrap().path()) {
        let idle = Actor::new(test, "idle");
        let error = leaf.adopt(idle.pid()).unwrap_err();
        assert!(format!("{error:#}").contains("nsdelegate"), "{error:#}");
        leaf.remove().unwrap();
        return std::mem::forget(ground);
    }
    let mut idle = Actor::in_leaf(&leaf, test, "idle");
    assert!(leaf.contains(idle.pid()).unwrap());
    assert!(!leaf.contains(std::process::id()).unwrap());
    let found = plan.id().open(&ground.host).unwrap().unwrap();
    found.kill().unwrap();
    found.wait_empty(FOREVER).unwrap();
    assert_eq!(idle.wait(), Err(9));
    found.remove().unwrap();
    // It is not this process's to clean up.
    std::mem::forget(ground);
}

/// A mount namespace without one of the hierarchies cannot prove that the leaf is gone.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_hidden_hierarchy_is_an_error() {
    const TEST: &str = "discovery::a_hidden_hierarchy_is_an_error";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let id = leaf.id().clone();
        let Some(last) = leaf.paths().last() else { panic!() };
        let hidden = ground.host.mounts().iter().find(|mount| last.starts_with(mount.path()));
        let point = hidden.unwrap().path().to_owned();
        aside(move || {
            nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH).unwrap();
            let error = id.open(&Host::discover().unwrap()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let text = error.to_string();
            assert!(text.contains("hierarchy") && text.contains("mount -t cgroup"), "{text}");
            assert!(text.contains(point.to_str().unwrap()), "{text}");
        });
        leaf.remove().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn mount_points_need_not_be_utf8() {
    use std::os::unix::ffi::OsStrExt as _;
    let scratch = Scratch::new("bytes");
    let point = scratch.path().join(std::ffi::OsStr::from_bytes(b"\xff v2\n"));
    std::fs::create_dir(&point).unwrap();
    aside(move || {
        mount(Some("none"), &point, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        let host = Host::discover().unwrap();
        assert!(host.mounts().iter().any(|mount| mount.path() == point));
        nix::mount::umount2(&point, nix::mount::MntFlags::MNT_DETACH).unwrap();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refuses_a_mount_by_its_id() {
    let scratch = Scratch::new("id");
    let point = scratch.dir("v2");
    aside(move || {
        mount(Some("none"), &point, Some("cgroup2"), MsFlags::empty(), None::<&str>).unwrap();
        // Of the right kind, and another mount than planned.
        let mountinfo = format!("1 1 0:1 / {} rw - cgroup2 none rw", point.display());
        let texts = HostTexts { mountinfo: mountinfo.as_bytes(), ..HostTexts::default() };
        let host = Host::from_texts(&texts);
        let plan = LeafPlan::new(&host, CgroupVersion::V2, "a", "leaf", &Limits::new()).unwrap();
        assert_eq!(plan.id().open(&host).unwrap_err().kind(), ErrorKind::Unexpected);
    });
}

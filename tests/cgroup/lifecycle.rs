//! The life of a leaf.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;

use jail_cgroup::{ByteSize, CgroupVersion, ErrorKind, Limit, Limits};

use crate::support::{Actor, FOREVER, Ground, play};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_leaf_lives_and_ends() {
    play();
    const TEST: &str = "lifecycle::a_leaf_lives_and_ends";
    for ground in Ground::each(TEST, &Limits::new()) {
        let plan = ground.plan("leaf", &Limits::new());
        assert!(plan.id().open(&ground.host).unwrap().is_none());
        let leaf = plan.create().unwrap();
        assert!(leaf.paths().eq(plan.paths()));
        assert!(leaf.is_empty().unwrap());

        let mut idle = Actor::new(TEST, "idle");
        assert!(!leaf.contains(idle.pid()).unwrap());
        leaf.adopt(idle.pid()).unwrap();
        assert!(leaf.contains(idle.pid()).unwrap());
        assert!(!leaf.contains(std::process::id()).unwrap());
        assert_eq!(leaf.members().unwrap(), [idle.pid()]);
        assert!(!leaf.is_empty().unwrap());

        // Another process would find it so.
        let found = plan.id().open(&ground.host).unwrap().unwrap();
        assert_eq!(found.members().unwrap(), [idle.pid()]);
        let error = found.remove().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains(&idle.pid().to_string()), "{error}");

        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
        assert!(!leaf.contains(idle.pid()).unwrap());
        let report = leaf.remove().unwrap();
        // In each hierarchy the leaf, and the parent that was made for it.
        assert_eq!(report.removed.len(), 2 * plan.paths().count());
        assert!(ground.dirs().is_empty());
        assert!(plan.id().open(&ground.host).unwrap().is_none());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn new_processes_start_in_the_leaf() {
    const TEST: &str = "lifecycle::new_processes_start_in_the_leaf";
    for limits in [Limits::new(), Limits::new().numa_node(0)] {
        for ground in Ground::each(TEST, &limits) {
            let leaf = ground.plan("leaf", &limits).create().unwrap();
            let place = leaf.spawn_into().unwrap();
            let inode = |path| fs::metadata(path).unwrap().ino();
            let held = |fd| rustix::fs::fstat(fd).unwrap().st_ino;
            match ground.version {
                CgroupVersion::V1 => {
                    let tasks = leaf.paths().map(|path| inode(path.join("tasks")));
                    assert!(place.tasks.iter().map(|file| held(file.as_fd())).eq(tasks));
                    assert!(place.group.is_none());
                    assert_eq!(place.moves_memory, limits != Limits::new());
                }
                CgroupVersion::V2 => {
                    assert_eq!(place.group.map(held), leaf.paths().next().map(inode));
                    assert!(place.tasks.is_empty() && !place.moves_memory);
                }
            }
            drop(place);
            leaf.remove().unwrap();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_operators_parent_stays() {
    const TEST: &str = "lifecycle::the_operators_parent_stays";
    for ground in Ground::each(TEST, &Limits::new()) {
        let plan = ground.plan("leaf", &Limits::new());
        let parents: Vec<_> = plan.paths().map(|path| path.parent().unwrap().to_owned()).collect();
        for parent in &parents {
            fs::create_dir(parent).unwrap();
        }
        let report = plan.create().unwrap().remove().unwrap();
        assert!(report.removed.iter().eq(&plan.paths().collect::<Vec<_>>()));
        assert!(parents.iter().all(|parent| parent.exists()));
        for parent in parents {
            fs::remove_dir(parent).unwrap();
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn used_parents_stay() {
    const TEST: &str = "lifecycle::used_parents_stay";
    for ground in Ground::each(TEST, &Limits::new()) {
        let (one, two) = (ground.leaf("one", &Limits::new()), ground.leaf("two", &Limits::new()));
        one.remove().unwrap();
        assert!(!ground.dirs().is_empty());
        two.remove().unwrap();
        assert!(ground.dirs().is_empty());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refuses_a_populated_leaf() {
    play();
    const TEST: &str = "lifecycle::refuses_a_populated_leaf";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let idle = Actor::in_leaf(&leaf, TEST, "idle");
        let error = ground.plan("leaf", &Limits::new()).create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains(&idle.pid().to_string()), "{error}");
        assert_eq!(leaf.members().unwrap(), [idle.pid()]);
    }
}

/// An empty leaf from a killed launcher, with a subgroup, is replaced: the counters start at zero.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn empty_leaves_are_replaced() {
    play();
    const TEST: &str = "lifecycle::empty_leaves_are_replaced";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        for path in leaf.paths() {
            fs::create_dir(path.join("below")).unwrap();
        }
        let mut busy = Actor::in_leaf(&leaf, TEST, "hog 1");
        busy.go();
        assert_eq!(busy.wait(), Ok(0));
        let before = leaf.stats().unwrap();
        let leaf = ground.leaf("leaf", &Limits::new());
        let after = leaf.stats().unwrap();
        assert!(before.cpu_usage > after.cpu_usage, "{before:?} {after:?}");
        assert!(leaf.paths().all(|path| !path.join("below").exists()));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn subgroups_count() {
    play();
    const TEST: &str = "lifecycle::subgroups_count";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::new(TEST, "idle");
        for path in leaf.paths() {
            fs::create_dir_all(path.join("a/b")).unwrap();
            fs::write(path.join("a/b/cgroup.procs"), idle.pid().to_string()).unwrap();
        }
        assert_eq!(leaf.members().unwrap(), [idle.pid()]);
        assert!(leaf.contains(idle.pid()).unwrap());
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
        // Bottom-up: each hierarchy's two, its leaf and its parent.
        let groups = leaf.paths().count();
        assert_eq!(leaf.remove().unwrap().removed.len(), 4 * groups);
        assert!(ground.dirs().is_empty());
    }
}

/// On v1, each thread may be in different groups of each hierarchy.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn partial_members_are_errors() {
    play();
    const TEST: &str = "lifecycle::partial_members_are_errors";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let dirs: Vec<_> = leaf.paths().collect();
        let [first, .., last] = dirs.as_slice() else {
            assert_eq!(ground.version, CgroupVersion::V2);
            continue;
        };
        let idle = Actor::new(TEST, "idle");
        fs::write(first.join("cgroup.procs"), idle.pid().to_string()).unwrap();
        let error = leaf.contains(idle.pid()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Partial);
        for dir in [first, last] {
            assert!(error.to_string().contains(dir.to_str().unwrap()), "{error}");
        }
        // Half a member is to be killed like a whole one.
        assert_eq!(leaf.members().unwrap(), [idle.pid()]);

        let mut spin = Actor::in_leaf(&leaf, TEST, "spin 1");
        spin.go();
        spin.says("spinning");
        let tasks = format!("/proc/{}/task", spin.pid());
        let thread = || {
            let names = fs::read_dir(&tasks).unwrap().map(|task| task.unwrap().file_name());
            names.map(|name| name.into_string().unwrap()).find(|tid| *tid != spin.pid().to_string())
        };
        crate::support::eventually("the thread starts", || thread().is_some());
        assert!(leaf.contains(spin.pid()).unwrap());
        fs::write(last.parent().unwrap().join("tasks"), thread().unwrap()).unwrap();
        let error = leaf.contains(spin.pid()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Partial);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refused_values_leave_nothing() {
    // No such disk: the limit is right as far as anyone can tell before the kernel does.
    let disk = jail_cgroup::IoLimit::new(4000, 7).write_bps(ByteSize::mib(1));
    let limits = Limits::new().io(disk);
    const TEST: &str = "lifecycle::refused_values_leave_nothing";
    for ground in Ground::each(TEST, &limits) {
        let error = ground.plan("leaf", &limits).create().unwrap_err();
        assert_eq!((error.kind(), error.limit()), (ErrorKind::Refused, Some(Limit::Io)));
        assert!(error.to_string().contains("4000:7"), "{error}");
        assert!(ground.dirs().is_empty());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn missing_processes_are_named() {
    const TEST: &str = "lifecycle::missing_processes_are_named";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        // More than there can be pids.
        let error = leaf.adopt(4_194_305).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NotFound);
        assert!(error.to_string().contains("no process 4194305"), "{error}");
        assert!(!leaf.contains(4_194_305).unwrap());
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn removed_leaves_are_empty() {
    const TEST: &str = "lifecycle::removed_leaves_are_empty";
    for ground in Ground::each(TEST, &Limits::new()) {
        let held = ground.leaf("leaf", &Limits::new());
        held.id().open(&ground.host).unwrap().unwrap().remove().unwrap();
        assert_eq!(held.stats().unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(held.members().unwrap(), Vec::<u32>::new());
        assert!(held.is_empty().unwrap());
        assert_eq!(held.oom_kills().unwrap(), 0);
        assert!(!held.is_frozen().unwrap());
        held.kill().unwrap();
        held.wait_empty(FOREVER).unwrap();
        assert!(held.remove().unwrap().removed.is_empty());
    }
}

/// A v2 group with processes cannot enable controllers. Without limits, no controller is needed.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_populated_parent_is_named() {
    play();
    const TEST: &str = "lifecycle::a_populated_parent_is_named";
    let limits = Limits::new().pids_max(10);
    for ground in Ground::each(TEST, &limits) {
        let plan = ground.plan("leaf", &limits);
        let idle = Actor::new(TEST, "idle");
        for path in plan.paths() {
            let parent = path.parent().unwrap();
            fs::create_dir(parent).unwrap();
            fs::write(parent.join("cgroup.procs"), idle.pid().to_string()).unwrap();
        }
        let state = || -> Vec<String> {
            let parents = plan.paths().map(|path| path.parent().unwrap().to_owned());
            let files = parents.flat_map(|parent| {
                ["cgroup.type", "cgroup.subtree_control"].map(|file| parent.join(file))
            });
            files.filter_map(|file| fs::read_to_string(file).ok()).collect()
        };
        let before = state();
        match ground.version {
            CgroupVersion::V1 => plan.create().unwrap().remove().map(drop).unwrap(),
            CgroupVersion::V2 => {
                let error = plan.create().unwrap_err();
                assert_eq!((error.kind(), error.limit()), (ErrorKind::Busy, Some(Limit::PidsMax)));
                assert!(error.to_string().contains("processes of its own"), "{error}");
                assert!(plan.paths().all(|path| !path.exists()));
            }
        }
        assert_eq!(state(), before);

        let leaf = ground.leaf("unlimited", &Limits::new());
        let other = Actor::in_leaf(&leaf, TEST, "idle");
        assert!(leaf.contains(other.pid()).unwrap());
        assert_eq!(state(), before);
    }
}

/// A group cannot have the name of a kernel file.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refuses_names_of_files() {
    const TEST: &str = "lifecycle::refuses_names_of_files";
    for ground in Ground::each(TEST, &Limits::new()) {
        let error = ground.plan("cgroup.procs", &Limits::new()).create().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert!(error.to_string().contains("cgroup.procs: a file has that name"), "{error}");
        assert!(ground.dirs().is_empty());
    }
}

/// Another program may use the name of a removed leaf.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_name_used_again_stays() {
    const TEST: &str = "lifecycle::a_name_used_again_stays";
    for ground in Ground::each(TEST, &Limits::new()) {
        let held = ground.leaf("leaf", &Limits::new());
        let paths: Vec<_> = held.paths().collect();
        for path in &paths {
            fs::remove_dir(path).unwrap();
            fs::create_dir(path).unwrap();
        }
        let report = held.remove().unwrap();
        assert!(report.removed.is_empty(), "{report:?}");
        assert!(paths.iter().all(|path| path.exists()));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn names_need_not_be_utf8() {
    play();
    const TEST: &str = "lifecycle::names_need_not_be_utf8";
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::OsStr::from_bytes(b"\xff \xfe");
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::new(TEST, "idle");
        for path in leaf.paths() {
            fs::create_dir(path.join(name)).unwrap();
            fs::write(path.join(name).join("cgroup.procs"), idle.pid().to_string()).unwrap();
        }
        assert!(leaf.contains(idle.pid()).unwrap());
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
        leaf.remove().unwrap();

        // A leaf is found below such a group.
        let mark = testkit::unique("mark");
        let plan = ground.plan("leaf", &Limits::new()).owned_by(&mark).unwrap();
        let leaf = plan.create().unwrap();
        for path in leaf.paths() {
            let parent = path.parent().unwrap().join(name);
            fs::create_dir_all(parent.join("marked")).unwrap();
            rustix::fs::setxattr(
                parent.join("marked"),
                "trusted.jail-cgroup.leaf",
                mark.as_bytes(),
                rustix::fs::XattrFlags::CREATE,
            )
            .unwrap();
        }
        let found = ground.host.leaves_owned_by(&mark, "marked").unwrap();
        assert!(found.unsearched.is_empty(), "{:?}", found.unsearched);
        let [marked] = found.leaves.as_slice() else { panic!("{found:?}") };
        assert!(marked.paths().all(|path| path.parent().unwrap().ends_with(name)));
        assert!(marked.id().open(&ground.host).unwrap().is_some());
    }
}

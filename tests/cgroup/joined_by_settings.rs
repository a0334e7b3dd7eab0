//! A jailer joins the leaf by the plan's settings, or with the leaf as the parent.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jail_cgroup::{ByteSize, CgroupVersion, Leaf, LeafPlan, Limits};
use testkit::{Binaries, KillOnDrop, Scratch};

use crate::support::{FOREVER, Ground, eventually};

const ID: &str = "vm-1";

/// Each jailer there is, by path: the official ones, older releases of them, and the stand-in.
fn jailers() -> Vec<PathBuf> {
    let each = Binaries::each().into_iter().map(|binaries| binaries.jailer().to_owned());
    each.chain(testkit::older_jailers().into_iter().map(|(_, path)| path)).collect()
}

/// Starts the jailer with a VMM that runs until killed.
fn start(
    jailer: &Path,
    base: &Path,
    version: CgroupVersion,
    parent: &str,
    settings: &[(String, String)],
) -> KillOnDrop {
    let mut command = Command::new(jailer);
    command
        .args(["--id", ID, "--uid", "54322", "--gid", "54322", "--exec-file"])
        .arg(Binaries::stand_ins().firecracker())
        .arg("--chroot-base-dir")
        .arg(base)
        .args(["--parent-cgroup", parent, "--cgroup-version"])
        .arg(match version {
            CgroupVersion::V1 => "1",
            CgroupVersion::V2 => "2",
        });
    for (file, value) in settings {
        command.arg("--cgroup").arg(format!("{file}={value}"));
    }
    command.args(["--", "--api-sock", "/api.sock"]);
    command.stdin(Stdio::null()).stdout(Stdio::null());
    KillOnDrop::spawn(&mut command)
}

/// Checks that the jailer's process is in the limited leaf and is killed with the leaf.
fn check(plan: &LeafPlan, leaf: Leaf, jailer: &Path, mut child: KillOnDrop) {
    let exe = PathBuf::from(format!("/proc/{}/exe", child.id()));
    eventually(&format!("{} execs the VMM", jailer.display()), || {
        assert_eq!(child.try_wait().unwrap(), None, "{}", jailer.display());
        fs::read_link(&exe).is_ok_and(|exe| exe.ends_with("firecracker"))
    });
    leaf.adopt_rest(child.id()).unwrap();
    assert!(leaf.contains(child.id()).unwrap(), "{}", jailer.display());
    for effective in leaf.effective().unwrap() {
        if let Some(asked) = &effective.asked {
            assert_eq!(effective.value, *asked, "{}: {effective:?}", jailer.display());
        }
    }
    leaf.kill().unwrap();
    leaf.wait_empty(FOREVER).unwrap();
    child.wait().unwrap();
    leaf.remove().unwrap();
    assert!(plan.paths().all(|path| !path.exists()));
}

fn joined(test: &str, limits: &Limits) {
    for ground in Ground::each(test, limits) {
        let plan = ground.plan(ID, limits);
        if plan.settings().is_empty() {
            testkit::skip(test, "a bare v2 has no setting to pass");
            continue;
        }
        for jailer in jailers() {
            let scratch = Scratch::new("settings");
            let leaf = plan.create().unwrap();
            let child =
                start(&jailer, scratch.path(), ground.version, &ground.parent, &plan.settings());
            check(&plan, leaf, &jailer, child);
            println!("{test}: {}: {} {:?}", ground.version, jailer.display(), plan.settings());
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn limits_join_the_leaf() {
    let limits = Limits::new().memory_max(ByteSize::mib(256)).cpus(0.5).pids_max(64);
    joined("joined_by_settings::limits_join_the_leaf", &limits);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn neutral_settings_join_the_leaf() {
    joined("joined_by_settings::neutral_settings_join_the_leaf", &Limits::new());
}

/// The files that a jailer cannot simply be told: a swap limit over a memory limit, a cpuset.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn cpusets_join_the_leaf() {
    let limits = Limits::new().numa_node(0).cpu_weight(50);
    joined("joined_by_settings::cpusets_join_the_leaf", &limits);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn swap_limits_join_the_leaf() {
    const TEST: &str = "joined_by_settings::swap_limits_join_the_leaf";
    let limits = Limits::new().memory_max(ByteSize::mib(256)).memory_swap_max(ByteSize::mib(64));
    for ground in Ground::each(TEST, &limits) {
        if let Err(error) = ground.plan("probe", &limits).create() {
            testkit::skip(TEST, &error.to_string());
            return;
        }
    }
    joined(TEST, &limits);
}

/// From release 1.6 on, a jailer without settings joins an existing parent.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_parent_option_joins_the_leaf() {
    const TEST: &str = "joined_by_settings::the_parent_option_joins_the_leaf";
    for ground in Ground::each(TEST, &Limits::new()) {
        if ground.version == CgroupVersion::V1 {
            continue;
        }
        let plan = ground.plan(ID, &Limits::new());
        for binaries in Binaries::each() {
            let scratch = Scratch::new("settings");
            let leaf = plan.create().unwrap();
            let parent = format!("{}/{ID}", ground.parent);
            let child = start(binaries.jailer(), scratch.path(), CgroupVersion::V2, &parent, &[]);
            check(&plan, leaf, binaries.jailer(), child);
        }
    }
}

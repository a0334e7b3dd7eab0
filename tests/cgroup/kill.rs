//! Killing a leaf (docs/threat-model.md, rows 32 and 40).

use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use jail_cgroup::{CgroupVersion, ErrorKind, Limits};

use crate::support::{Actor, FOREVER, Ground, eventually, play};

const SECOND: Duration = Duration::from_secs(1);

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_32_a_fork_bomb_dies() {
    play();
    const TEST: &str = "kill::row_32_a_fork_bomb_dies";
    const MOST: u64 = 64;
    let limits = Limits::new().pids_max(MOST);
    for ground in Ground::each(TEST, &limits) {
        let mut times: Vec<Duration> = Vec::new();
        // The promise is a second; the machine may be busy with something else for some of them.
        while times.len() < 3 || times.len() < 10 && times.iter().all(|time| *time >= SECOND) {
            let leaf = ground.leaf("leaf", &limits);
            let mut bomb = Actor::in_leaf(&leaf, TEST, "bomb");
            bomb.go();
            let mut most = 0;
            eventually("forks are denied", || {
                let stats = leaf.stats().unwrap();
                most = most.max(stats.pids_current.unwrap());
                stats.pids_denied.unwrap() > 0
            });
            assert!(most <= MOST, "{most} tasks of {MOST}");
            assert!(leaf.members().unwrap().len() > 8);

            let begun = Instant::now();
            leaf.kill().unwrap();
            leaf.wait_empty(FOREVER).unwrap();
            times.push(begun.elapsed());
            assert_eq!(bomb.wait(), Err(9));
            // The dead still count as tasks until init, whose orphans they are, has reaped them.
            assert_eq!(leaf.members().unwrap(), Vec::<u32>::new(), "somebody lives");
            leaf.remove().unwrap();
        }
        println!("{TEST}: {}: dead {times:?} after the kill", ground.version);
        assert!(times.iter().any(|time| *time < SECOND), "{times:?}");
    }
}

/// Without a limit and without a freezer, `cgroup.kill` or the pids controller stops the bomb.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn an_unlimited_fork_bomb_dies() {
    play();
    const TEST: &str = "kill::an_unlimited_fork_bomb_dies";
    for ground in Ground::each(TEST, &Limits::new()) {
        // Far above what it gets to, so that a failure does not take the machine with it.
        let guard = Limits::new().pids_max(2000);
        let limits =
            match jail_cgroup::LeafPlan::new(&ground.host, ground.version, "p", "l", &guard) {
                Ok(_) => guard,
                Err(_) => Limits::new(),
            };
        let leaf = ground.leaf("leaf", &limits);
        let mut bomb = Actor::in_leaf(&leaf, TEST, "bomb");
        bomb.go();
        eventually("it grows", || leaf.members().unwrap().len() > 20);
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(bomb.wait(), Err(9));
        leaf.remove().unwrap();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn frozen_processes_are_killed() {
    play();
    const TEST: &str = "kill::frozen_processes_are_killed";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        match leaf.freeze(FOREVER) {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                testkit::skip(TEST, &error.to_string());
                continue;
            }
            frozen => frozen.unwrap(),
        }
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn callers_in_the_leaf_are_refused() {
    play();
    const TEST: &str = "kill::callers_in_the_leaf_are_refused";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let role = format!("suicidal {} {}", ground.parent, ground.version);
        let mut actor = Actor::in_leaf(&leaf, TEST, &role);
        actor.go();
        assert_eq!(actor.says("kill"), "InvalidInput");
        assert_eq!(actor.wait(), Ok(0));
    }
}

/// Tries to kill the leaf of the calling process.
pub(crate) fn suicidal() {
    let ground = Ground::of_role();
    let id = ground.plan("leaf", &Limits::new()).id();
    let leaf = id.open(&ground.host).unwrap().unwrap();
    println!("\nkill {:?}", leaf.kill().unwrap_err().kind());
    // It is not this process's to clean up.
    std::mem::forget(ground);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_40_four_descriptors_kill_thousands() {
    play();
    const TEST: &str = "kill::row_40_four_descriptors_kill_thousands";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut crowd = Actor::in_leaf(&leaf, TEST, &format!("crowd {CROWD}"));
        crowd.go();
        crowd.says("crowd");
        assert!(leaf.members().unwrap().len() > CROWD);
        // Errors name a few of them, and the number.
        let error = leaf.wait_empty(Duration::ZERO).unwrap_err().to_string();
        assert!(error.contains(&format!("{} processes", CROWD + 1)), "{error}");
        assert!(error.len() < 400, "{error}");
        let mut killer = Actor::new(TEST, &format!("killer {} {}", ground.parent, ground.version));
        killer.go();
        println!("{TEST}: {}: killed {}", ground.version, killer.says("killed"));
        assert_eq!(killer.wait(), Ok(0));
        assert_eq!(crowd.wait(), Err(9));
        leaf.remove().unwrap();
    }
}

/// Number of processes in the leaf.
const CROWD: usize = 2000;

/// Starts processes that sleep.
pub(crate) fn crowd(size: usize) {
    for _ in 0..size {
        let mut sleep = std::process::Command::new("sleep");
        sleep.arg("1000").stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        // Its parent is killed with it.
        std::mem::forget(sleep.spawn().unwrap());
    }
    println!("\ncrowd {size}");
    std::io::stdin().read_line(&mut String::new()).unwrap();
}

/// Kills the leaf with four descriptors more than before.
pub(crate) fn killer() {
    let ground = Ground::of_role();
    let id = ground.plan("leaf", &Limits::new()).id();
    let leaf = id.open(&ground.host).unwrap().unwrap();
    let next = std::fs::File::open("/dev/null").unwrap();
    let free = u64::try_from(next.as_raw_fd()).unwrap();
    drop(next);
    let memory = || -> u64 {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
        line.trim_end_matches("kB").trim().parse().unwrap()
    };
    let before = memory();
    nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_NOFILE, free + 4, free + 4)
        .unwrap();
    leaf.kill().unwrap();
    leaf.wait_empty(FOREVER).unwrap();
    let more = memory() - before;
    assert!(more < 1024, "{more} KiB for {CROWD} processes");
    println!("\nkilled in {more} KiB");
    std::mem::forget(ground);
}

/// v1 keeps the processes of a frozen group from exiting, and names the group; v2 kills at once.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_frozen_parent_is_named() {
    play();
    const TEST: &str = "kill::a_frozen_parent_is_named";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        let Some(freezer) = Freezer::of(&leaf) else {
            testkit::skip(TEST, "no freezer hierarchy is mounted");
            continue;
        };
        assert_eq!(leaf.frozen_by().unwrap(), None);
        freezer.freeze();
        assert_eq!(leaf.frozen_by().unwrap().as_ref(), Some(&freezer.parent));
        assert!(leaf.is_frozen().unwrap());
        match ground.version {
            CgroupVersion::V1 => {
                let error = leaf.kill().unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Frozen);
                assert_eq!(error.path(), Some(&*freezer.parent));
                assert!(error.hint().unwrap().contains("Thaw"), "{error}");
                assert!(idle.is_alive());
                freezer.thaw();
            }
            CgroupVersion::V2 => leaf.kill().unwrap(),
        }
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
        freezer.thaw();
        assert!(!leaf.is_frozen().unwrap());
    }
}

/// The parent of a leaf, in the hierarchy that freezes.
struct Freezer {
    parent: PathBuf,
    file: &'static str,
    values: [&'static str; 2],
}

impl Freezer {
    fn of(leaf: &jail_cgroup::Leaf) -> Option<Self> {
        leaf.paths().find_map(|path| {
            let parent = path.parent().unwrap().to_owned();
            let kinds = [("freezer.state", ["FROZEN", "THAWED"]), ("cgroup.freeze", ["1", "0"])];
            let (file, values) = kinds.into_iter().find(|(file, _)| parent.join(file).exists())?;
            Some(Self { parent, file, values })
        })
    }

    fn freeze(&self) {
        std::fs::write(self.parent.join(self.file), self.values[0]).unwrap();
    }

    fn thaw(&self) {
        std::fs::write(self.parent.join(self.file), self.values[1]).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.thaw();
    }
}

/// systemd removes empty groups of others.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_half_removed_leaf_is_killed() {
    play();
    const TEST: &str = "kill::a_half_removed_leaf_is_killed";
    for ground in Ground::each(TEST, &Limits::new()) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let dirs: Vec<_> = leaf.paths().collect();
        let [first, .., last] = dirs.as_slice() else { continue };
        let mut idle = Actor::new(TEST, "idle");
        std::fs::write(last.join("cgroup.procs"), idle.pid().to_string()).unwrap();
        std::fs::remove_dir(first).unwrap();
        assert_eq!(leaf.members().unwrap(), [idle.pid()]);
        leaf.kill().unwrap();
        leaf.wait_empty(FOREVER).unwrap();
        assert_eq!(idle.wait(), Err(9));
        leaf.remove().unwrap();
        assert!(ground.dirs().is_empty());
    }
}

/// In a pid namespace below, which has no pid for the process in the leaf.
pub(crate) fn stranger() {
    let ground = Ground::of_role();
    let leaf = ground.plan("leaf", &Limits::new()).id().open(&ground.host).unwrap().unwrap();
    assert_eq!(leaf.members().unwrap(), Vec::<u32>::new(), "nothing was hidden");
    assert!(!leaf.is_empty().unwrap(), "a process that is not seen does not count");
    let moment = Duration::from_millis(50);
    assert_eq!(leaf.wait_empty(moment).unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_79_a_hidden_process_counts() {
    play();
    const TEST: &str = "kill::row_79_a_hidden_process_counts";
    // v1 does not list such a process at all.
    let grounds = Ground::each(TEST, &Limits::new());
    for ground in grounds.iter().filter(|ground| ground.version == CgroupVersion::V2) {
        let leaf = ground.leaf("leaf", &Limits::new());
        let mut idle = Actor::in_leaf(&leaf, TEST, "idle");
        let role = format!("stranger {} {}", ground.parent, ground.version);
        let mut inside = testkit::in_pid_namespace(&testkit::reenter(TEST, role));
        let inside = inside.stdin(std::process::Stdio::piped());
        let mut inside = testkit::KillOnDrop::spawn(inside);
        std::io::Write::write_all(inside.stdin.as_mut().unwrap(), b"go\n").unwrap();
        assert!(inside.wait().unwrap().success());
        assert!(idle.is_alive());
        idle.kill();
        let _ = idle.wait();
        leaf.wait_empty(FOREVER).unwrap();
        leaf.remove().unwrap();
    }
}

//! The surroundings of a launcher under test: a chroot base, images that nothing may change, and the final check.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use microvm_runtime::{Boot, Drive, ErrorKind, JailSpec, Jailer, Limits, PidNamespace, User};
use testkit::{Binaries, Canary, HostState, Scratch, unique};

use crate::messages::{Order, Role};

/// Uids for the VM, which nothing else on the host has.
pub(crate) const UIDS: User = User::Leased { first: 53_100, last: 53_119 };

/// The kind of launch under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The default: the launcher makes the pid namespace, the jailer becomes the VMM. It is shut down in the end.
    ByLauncher,
    /// The jailer makes the pid namespace and exits before the VMM. The VMM is killed at the end.
    ByJailer,
}

/// The parent of the VM's control group, in each hierarchy with that parent.
#[derive(Debug)]
struct CgroupParent(String);

impl Drop for CgroupParent {
    fn drop(&mut self) {
        testkit::remove_cgroup(&self.0);
    }
}

/// A prepared host on which launchers are made to fail.
#[derive(Debug)]
pub struct Scene {
    scratch: Scratch,
    cgroup_parent: CgroupParent,
    canary: Canary,
    binaries: Binaries,
    spec: JailSpec,
    shape: Shape,
    launcher: fn() -> Command,
    before: HostState,
}

impl Scene {
    /// As many as this machine runs at a time, or `at_most`.
    ///
    /// # Panics
    /// As [`Scene::new`].
    #[must_use]
    pub fn several(
        at_most: usize,
        binaries: &Binaries,
        shape: Shape,
        launcher: fn() -> Command,
    ) -> Vec<Self> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        (0..cores.min(at_most)).map(|_| Self::new(binaries.clone(), shape, launcher)).collect()
    }

    /// `launcher` starts a process that does [`launcher::serve`](crate::launcher::serve).
    ///
    /// # Panics
    /// If the plan of the launch fails without an injected fault.
    #[must_use]
    pub fn new(binaries: Binaries, shape: Shape, launcher: fn() -> Command) -> Self {
        let before = HostState::snapshot();
        let scratch = Scratch::new("faults");
        let name = file_name(scratch.path());
        let _ = scratch.dir("base");
        let _ = scratch.dir("snapshots");
        let host = scratch.dir("host");
        let file = |name: &str, bytes: Vec<u8>| scratch.file(Path::new("host").join(name), bytes);
        let guest = fs::read(binaries.idle_guest())
            .unwrap_or_else(|error| panic!("read the guest's kernel: {error}"));
        let kernel = file("vmlinux", guest);
        let rootfs = file("rootfs", b"golden".repeat(3_000));
        let shared = file("shared", b"shared".repeat(100));
        let secret = file("secret", b"root's own".to_vec());
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))
            .and_then(|()| symlink("secret", host.join("link")))
            .and_then(|()| fs::hard_link(&secret, host.join("second name")))
            .unwrap_or_else(|error| panic!("set the scene: {error}"));
        let spec = JailSpec::new(format!("{name}/vm"), binaries.firecracker())
            .kernel(kernel)
            .drive(Drive::private("rootfs", rootfs))
            .drive(Drive::read_only("shared", shared))
            .user(UIDS)
            .boot(
                Boot::new().vcpus(1).memory_mib(128).kernel_args("console=ttyS0 reboot=k panic=1"),
            )
            .pid_namespace(match shape {
                Shape::ByLauncher => PidNamespace::ByLauncher,
                Shape::ByJailer => PidNamespace::ByJailer,
            })
            .ready_within(Duration::from_secs(20));
        let canary = Canary::take(&host);
        let cgroup_parent = CgroupParent(unique("faults"));
        let mut scene =
            Self { scratch, cgroup_parent, canary, binaries, spec, shape, launcher, before };
        let limited = scene.spec.clone().limits(Limits::new().pids_max(64));
        match Jailer::new(scene.order(Role::Life).config()).plan(&limited) {
            Ok(_) => scene.spec = limited,
            // This host keeps no such limit; the launch has the same calls but for it.
            Err(error) if error.kind() == ErrorKind::Unsupported => {}
            Err(error) => panic!("{error}: {error:?}"),
        }
        scene
    }

    /// Removes the scenes.
    ///
    /// # Panics
    /// If anything is left on the host.
    pub fn finish(scenes: Vec<Self>) {
        let before = scenes.into_iter().map(|scene| scene.before).collect::<Vec<_>>();
        before.iter().for_each(HostState::assert_unchanged);
    }

    pub(crate) fn order(&self, role: Role) -> Order {
        Order {
            role,
            jailer_bin: self.binaries.jailer().to_owned(),
            base: self.base(),
            cgroup_parent: self.cgroup_parent.0.clone(),
            spec: self.spec.clone(),
            snapshot: self.snapshots().join("taken"),
            kill: self.shape == Shape::ByJailer,
        }
    }

    pub(crate) fn launcher(&self) -> Command {
        (self.launcher)()
    }

    fn snapshots(&self) -> PathBuf {
        self.scratch.join("snapshots")
    }

    /// Returns all that is in the directory of snapshots.
    pub(crate) fn snapshots_left(&self) -> Vec<String> {
        below(&self.snapshots()).iter().map(|found| format!("file {}", found.display())).collect()
    }

    fn base(&self) -> PathBuf {
        self.scratch.join("base")
    }

    /// Returns the remains of a finished launcher, and the changes to the host.
    pub(crate) fn left(&self) -> Vec<String> {
        [self.jails_left(), self.snapshots_left(), self.canary.differences()].concat()
    }

    /// The same without snapshots, which a launcher may keep, and without the host's files, which a snapshot may link.
    pub(crate) fn jails_left(&self) -> Vec<String> {
        let mut left = Vec::new();
        let path = |what: &str, path: &Path| format!("{what} {}", path.display());
        // The directories of the exec files and of the leases are made once, and stay.
        let stays = |found: &PathBuf| found.parent() == Some(&self.base()) && found.is_dir();
        let found = below(&self.base()).into_iter().filter(|found| !stays(found));
        left.extend(found.map(|found| path("file", &found)));
        left.extend(testkit::mounts::below(self.scratch.path()).iter().map(|at| path("mount", at)));
        // The parent is the operator's: it may stay.
        for parent in testkit::cgroups_named(&self.cgroup_parent.0, "") {
            let dirs = below(&parent).into_iter().filter(|found| found.is_dir());
            left.extend(dirs.map(|dir| path("control group", &dir)));
        }
        left.extend(processes(&file_name(self.scratch.path())));
        left
    }

    /// Clears away what even a recovery left, so that the next life begins with nothing.
    pub(crate) fn clear(&self) {
        testkit::remove_cgroup(&self.cgroup_parent.0);
        let dirs = [self.base(), self.snapshots()];
        for entry in dirs.iter().flat_map(fs::read_dir).flatten().flatten() {
            if let Err(error) = fs::remove_dir_all(entry.path()) {
                eprintln!("left behind: {}: {error}", entry.path().display());
            }
        }
    }
}

/// Every path below `dir`.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(below(&entry.path()));
        }
    }
    found
}

/// The processes that were started for a jail of this scene: its name is in the base's, and in the VM's id.
fn processes(name: &str) -> Vec<String> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten().map(|entry| entry.path());
    let command = |dir: &Path| {
        let line = String::from_utf8_lossy(&fs::read(dir.join("cmdline")).ok()?).into_owned();
        line.contains(name).then(|| format!("process {} {:?}", file_name(dir), line))
    };
    pids.filter_map(|dir| command(&dir)).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

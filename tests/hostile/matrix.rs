//! Every verb against every mode of a hostile VMM, in each pid namespace mode, with and without a control group.

use std::collections::VecDeque;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use microvm_runtime::{
    Drive, ErrorKind, FirecrackerOptions, JailSpec, Jailer, LogLevel, PidNamespace, User, Vm,
    VmRuntimeError,
};
use testkit::{Binaries, Scratch, Tmpfs};

use crate::host::{Bystanders, Place, exec_file};
use crate::launcher::{self, Mounts};
use crate::usage::Usage;
use crate::{left, verbs};

const NAME: &str = "matrix::every_verb_survives_every_attack";
const MODE_ENV: &str = "MICROVM_TEST_HOSTILE_CASE";
/// Launchers at once: most of a case's time is waiting.
const AT_ONCE: usize = 8;
/// Uids that a case has to itself, and the first of all.
const UIDS: u32 = 10;
const FIRST_UID: u32 = 1_600_000;
const ID: &str = "hostile";

/// The modes in which the VM gives its drives other names.
const RENAMES: [&str; 6] =
    ["links", "fifos", "directories", "other-sockets", "sparse-files", "tree-names"];

/// The modes whose processes take long to exit once they are killed.
const SLOW: [&str; 1] = ["watches"];

/// The modes that met a fault in some cells and not in others: they are run in all cells, also in the short form.
const ALL_CELLS: [&str; 2] = ["leader-exits", "traced-vmm"];

/// The expected result of a launch in a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Launch {
    Starts,
    Fails,
    Either,
}

/// One cell of the matrix.
#[derive(Debug, Clone)]
struct Case {
    mode: String,
    launch: Launch,
    pid_namespace: PidNamespace,
    /// `None` without a control group, else whether the hierarchy is v2.
    leaf: Option<bool>,
    place: Place,
}

const PID_NAMESPACES: [PidNamespace; 3] =
    [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host];
const LEAVES: [Option<bool>; 3] = [Some(true), Some(false), None];

impl Case {
    fn name(&self) -> String {
        let leaf = match self.leaf {
            None => "no leaf",
            Some(true) => "v2",
            Some(false) => "v1",
        };
        format!("{} ({:?}, {leaf})", self.mode, self.pid_namespace)
    }

    /// For the launcher's environment.
    fn encode(&self) -> String {
        let namespace = PID_NAMESPACES.iter().position(|mode| *mode == self.pid_namespace).unwrap();
        let leaf = LEAVES.iter().position(|leaf| *leaf == self.leaf).unwrap();
        let Place { dir, cgroup_parent, uid, .. } = &self.place;
        let launch = self.launch as u8;
        let mode = &self.mode;
        format!("{mode}\t{launch}\t{namespace}\t{leaf}\t{uid}\t{cgroup_parent}\t{}", dir.display())
    }

    fn decode(text: &str) -> Self {
        let mut parts = text.split('\t');
        let mut next = || parts.next().unwrap().to_owned();
        let mode = next();
        let launch =
            [Launch::Starts, Launch::Fails, Launch::Either][next().parse::<usize>().unwrap()];
        let pid_namespace = PID_NAMESPACES[next().parse::<usize>().unwrap()];
        let leaf = LEAVES[next().parse::<usize>().unwrap()];
        let uid = next().parse().unwrap();
        let cgroup_parent = next();
        let dir = PathBuf::from(next());
        let place = Place { dir, cgroup_parent, uid, cgroup_v2: leaf != Some(false) };
        Self { mode, launch, pid_namespace, leaf, place }
    }

    fn spec(&self) -> JailSpec {
        let dir = &self.place.dir;
        let (uid, image) = (self.place.uid, dir.join("image"));
        // What never answers is waited for shortly.
        let ready_within = match self.launch {
            Launch::Starts => Duration::from_secs(60),
            Launch::Fails | Launch::Either => Duration::from_secs(2),
        };
        JailSpec::new(ID, exec_file(dir, &self.mode))
            .pid_namespace(self.pid_namespace)
            .user(User::Leased { first: uid, last: uid })
            .drive(Drive::private("private", &image))
            .drive(Drive::read_only("shared", &image))
            .drive(Drive::persistent("kept", dir.join("kept")))
            .drive(Drive::read_only("argv", dir.join("argv")))
            .firecracker(FirecrackerOptions::new().log_level(LogLevel::Info).metrics())
            .ready_within(ready_within)
    }

    /// The launcher's side: all verbs, in the order of a VM's life, four lives long.
    fn play(&self) {
        let place = &self.place;
        let small = self.mode == "disk-full";
        let disk = small.then(|| Tmpfs::mount(&place.dir, "size=24m,mode=0755"));
        fs::create_dir(place.base()).unwrap();
        let kept = place.dir.join("kept");
        for image in [&kept, &place.dir.join("image")] {
            fs::write(image, vec![7; 1 << 20]).unwrap();
        }
        let argv = format!(
            "jailer\0--id\0{0}\0--exec-file\0{1}\0--uid\0{2}\0--gid\0{2}\0--chroot-base-dir\0{3}",
            crate::host::BYSTANDER,
            Binaries::stand_ins().firecracker().display(),
            place.uid + 1,
            place.base().display()
        );
        fs::write(place.dir.join("argv"), argv).unwrap();
        let mut bystanders = Bystanders::start(place, ID);
        let (jailer, spec) = (place.jailer(), self.spec());
        let usage = Usage::begin();

        for life in [Self::looked_at, Self::adopted, Self::torn_down, Self::removed] {
            life(self, &jailer, &spec, &mut bystanders);
            bystanders.assert_unharmed();
            usage.assert_bounded();
        }
        let config = jailer.config().clone();
        verbs::compat(&jailer, &place.dir.join("image"), &config);
        usage.assert_bounded();
        assert_eq!(fs::read(&kept).unwrap().len(), 1 << 20, "the persistent drive is not whole");
        bystanders.end(place);
        drop(disk);
    }

    fn launch(&self, jailer: &Jailer, spec: &JailSpec) -> Option<Vm> {
        let launched = verbs::launch(jailer, spec);
        // The jailer's child is looked for among all that run in the jail, and a VMM that forks has several.
        let mistaken = |error: &VmRuntimeError| {
            error.kind() == ErrorKind::Identity && self.pid_namespace == PidNamespace::ByJailer
        };
        match (self.launch, &launched) {
            (Launch::Starts, Err(error)) if mistaken(error) => {}
            (Launch::Starts, Err(error)) => panic!("the launch failed: {error:?}"),
            (Launch::Fails, Ok(_)) => panic!("the launch came to something"),
            _ => {}
        }
        launched.ok()
    }

    /// A VM that its launcher looks at, while others want it, and then kills.
    fn looked_at(&self, jailer: &Jailer, spec: &JailSpec, bystanders: &mut Bystanders) {
        if let Some(vm) = self.launch(jailer, spec) {
            verbs::look(&vm);
            if vm.wait_timeout(Duration::ZERO).unwrap().is_none() {
                verbs::disturb(jailer, spec);
            }
            bystanders.assert_unharmed();
            verbs::kill(&vm);
            verbs::look(&vm);
        }
        self.remove(jailer);
    }

    /// A VM that a launcher let go of and another takes up.
    fn adopted(&self, jailer: &Jailer, spec: &JailSpec, bystanders: &mut Bystanders) {
        if let Some(vm) = self.launch(jailer, spec) {
            // Of one without a first thread nothing can be proven.
            let lives = !self.mode.ends_with("-later") && self.mode != "leader-exits";
            drop(vm);
            verbs::list(jailer);
            verbs::sweep(jailer);
            let adopted = verbs::adopt_and_shut_down(jailer, ID);
            bystanders.assert_unharmed();
            match adopted {
                Ok(()) => self.restart(jailer, spec),
                Err(error) => assert!(!lives, "it is not taken up: {error:?}"),
            }
        }
        self.remove(jailer);
    }

    /// Launches in the place of the stopped jail, which goes when the new one is whole.
    fn restart(&self, jailer: &Jailer, spec: &JailSpec) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let Err(error) = verbs::launch(jailer, spec) else { return };
            match error.kind() {
                // A child of the VMM runs on, and only a teardown may kill what is in no group of ours.
                ErrorKind::Running | ErrorKind::Record if !self.is_provable() => return,
                // The VM gave its persistent drive a name of its own: only a teardown takes that away.
                ErrorKind::Busy if RENAMES.contains(&self.mode.as_str()) => return,
                ErrorKind::Filesystem if self.mode == "disk-full" => return,
                // Its children die a moment after the VMM, and have its uid until then.
                ErrorKind::Running | ErrorKind::Busy if Instant::now() < deadline => {}
                ErrorKind::Identity if self.pid_namespace == PidNamespace::ByJailer => return,
                _ if self.launch != Launch::Starts => return,
                _ => panic!("it does not start again: {error:?}"),
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the kernel holds all that runs in the jail together: a control group, or a pid namespace that ends with its
    /// first process.
    fn is_provable(&self) -> bool {
        self.leaf.is_some() || self.pid_namespace != PidNamespace::Host
    }

    /// A VM that is torn down while it runs.
    fn torn_down(&self, jailer: &Jailer, spec: &JailSpec, _: &mut Bystanders) {
        drop(self.launch(jailer, spec));
        self.remove(jailer);
    }

    /// A VM that its launcher ends and removes at once.
    fn removed(&self, jailer: &Jailer, spec: &JailSpec, _: &mut Bystanders) {
        if let Some(vm) = self.launch(jailer, spec) {
            verbs::remove_all(jailer, vm);
        }
        self.remove(jailer);
    }

    /// Tears down, after which nothing is left of the VM.
    fn remove(&self, jailer: &Jailer) {
        let Place { uid, cgroup_parent, .. } = &self.place;
        let mut removed = verbs::tear_down(jailer, ID);
        // The kernel takes seconds to close a hundred inotify instances of a process that was killed: such a teardown may reach
        // its deadline, and is taken up again.
        let mut tries = if SLOW.contains(&self.mode.as_str()) { 6 } else { 0 };
        while removed.is_err() && tries > 0 {
            removed = verbs::tear_down(jailer, ID);
            tries -= 1;
        }
        if let Err(error) = removed {
            // What cannot be proven to be the jail's is refused (rule 11), and nothing is released.
            assert!(!self.is_provable(), "the teardown failed: {error:?}");
            let list = jailer.list().expect("list");
            assert!(
                list.jails.iter().any(|jail| jail.jail_id.as_str() == ID),
                "refused, and forgotten"
            );
            assert!(!left::processes(*uid).is_empty(), "refused for nothing: {error:?}");
            println!("refused: {error}");
            left::kill_all(*uid);
            verbs::tear_down(jailer, ID).expect("teardown of what is dead");
        }
        // What was killed may take a moment to be gone, but is no more told to go on.
        let tasks = left::no_task(*uid);
        let left = left::of(*uid, ID, &self.place.base(), cgroup_parent);
        assert!(left.is_empty(), "left after the teardown:\n      {}", left.join("\n      "));
        let queues = left::message_queues(*uid, &self.place.dir.join("mqueue"));
        assert!(queues.is_empty(), "left after the teardown: {queues:?}");
        assert!(tasks, "tasks of uid {uid} are left");
        verbs::tear_down(jailer, ID).expect("teardown of nothing");
        verbs::tear_down_jail(jailer, ID);
    }
}

/// The modes, and what a launch of each comes to.
fn modes() -> Vec<(String, Launch)> {
    let output = Command::new(Binaries::find().hostile()).arg("--modes").output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mode = |line: &str| {
        let (name, launch) = line.split_once('\t').unwrap();
        let launch = match launch {
            "starts" => Launch::Starts,
            "fails" => Launch::Fails,
            _ => Launch::Either,
        };
        (name.to_owned(), launch)
    };
    text.lines().map(mode).collect()
}

/// The cells: all of them in the long form, else one of each mode, by turns in each pid namespace mode with each kind of
/// leaf.
fn cases(dir: &Path) -> Vec<Case> {
    let only = std::env::var("MICROVM_TEST_HOSTILE_MODE").ok();
    let mut cases = Vec::new();
    for (index, (mode, launch)) in modes().into_iter().enumerate() {
        if only.as_ref().is_some_and(|only| *only != mode) {
            continue;
        }
        for (column, pid_namespace) in PID_NAMESPACES.into_iter().enumerate() {
            for (row, leaf) in LEAVES.into_iter().enumerate() {
                let short = index % 9 == column * 3 + row || ALL_CELLS.contains(&mode.as_str());
                if !(short || testkit::long() || only.is_some()) {
                    continue;
                }
                let number = u32::try_from(cases.len()).unwrap();
                let place = Place {
                    dir: dir.join(number.to_string()),
                    cgroup_parent: testkit::unique("hostile"),
                    uid: FIRST_UID + number * UIDS,
                    cgroup_v2: leaf != Some(false),
                };
                fs::create_dir(&place.dir).unwrap();
                cases.push(Case { mode: mode.clone(), launch, pid_namespace, leaf, place });
            }
        }
    }
    cases
}

fn run(case: &Case) -> Result<(), String> {
    let mut command = testkit::reenter(NAME, launcher::REAPER);
    command.env(MODE_ENV, case.encode());
    let uids = case.place.uid..case.place.uid + UIDS;
    let keys = || -> Vec<u64> { uids.clone().map(testkit::keys_of).collect() };
    let keys_before = keys();
    let mounts = if case.leaf.is_some() { Mounts::Host } else { Mounts::NoControlGroups };
    let mut result = launcher::run(command, mounts);
    uids.clone().for_each(left::kill_all);
    if keys().iter().zip(&keys_before).any(|(now, before)| now > before) {
        result = result.and(Err("keys of the VM are left".to_owned()));
    }
    testkit::remove_cgroup(&case.place.cgroup_parent);
    let _ = fs::remove_dir_all(&case.place.dir);
    result
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn every_verb_survives_every_attack() {
    if testkit::role().as_deref() == Some("launcher") {
        return Case::decode(&std::env::var(MODE_ENV).unwrap()).play();
    }
    if testkit::role().as_deref() == Some(launcher::REAPER) {
        return launcher::reap(testkit::reenter(NAME, "launcher"));
    }
    let scratch = Scratch::new("hostile");
    let begun = Instant::now();
    let cases = cases(scratch.path());
    let count = cases.len();
    let queue = Mutex::new(VecDeque::from(cases));
    let failures = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                loop {
                    let Some(case) = queue.lock().unwrap().pop_front() else { return };
                    let begun = Instant::now();
                    let result = run(&case);
                    println!("{}: {:?}", case.name(), begun.elapsed());
                    if let Err(why) = result {
                        failures.lock().unwrap().push(format!("{}: {why}", case.name()));
                    }
                }
            });
        }
    });
    println!("{count} cases in {:?}", begun.elapsed());
    let failures = failures.into_inner().unwrap();
    assert!(failures.is_empty(), "{} of {count}:\n{}", failures.len(), failures.join("\n"));
}

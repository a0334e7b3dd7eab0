//! Four launchers that call verbs at random on the same few VMs of two bases, while one of them is killed now and then.
//!
//! Each launcher knows what it holds. The model is made of that: what one holds no other gets, loses or misses, and
//! every refusal has one of the kinds that rivals explain.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use microvm_runtime::{
    CopyOptions, ErrorKind, JailSpec, JailState, Jailer, JailerConfig, PidNamespace, User, Vm,
    VmRuntimeResult,
};
use testkit::{Binaries, KillOnDrop, Scratch};

use crate::left;
use crate::usage::within;

const NAME: &str = "rivals::rivals_hold_what_they_hold";
const RIVAL: &str = "rival";
const ENV: &str = "MICROVM_TEST_HOSTILE_RIVAL";
const SEED_ENV: &str = "MICROVM_TEST_SEED";
const RIVALS: u64 = 4;
const FIRST_UID: u32 = 1_580_000;
const IDS: [&str; 3] = ["one", "two", "three/of?three"];
/// A VM in each base that the test holds throughout.
const ANCHORS: [&str; 2] = ["anchor-0", "anchor-1"];
/// The kind of a refusal because the VM of that id in the other base has, or is just getting, the control group of that name.
const OTHER_BASE: ErrorKind = ErrorKind::Cgroup;
const OWN: Duration = Duration::from_secs(30);

/// Two bases below one directory, and one parent of all control groups.
#[derive(Debug, Clone)]
struct Ground {
    dir: PathBuf,
    cgroup_parent: String,
}

impl Ground {
    fn jailer(&self, base: usize) -> Jailer {
        let uid = self.uids(base).0;
        Jailer::new(JailerConfig {
            jailer_bin: Binaries::stand_ins().jailer().to_owned(),
            uid,
            gid: uid,
            chroot_base: self.dir.join(format!("base-{base}")),
            cgroup_parent: self.cgroup_parent.clone(),
            cgroup_v2: true,
            numa_node: None,
        })
    }

    /// The first and the last uid of a base's VMs.
    fn uids(&self, base: usize) -> (u32, u32) {
        let first = FIRST_UID + 100 * u32::try_from(base).unwrap();
        (first, first + 19)
    }

    fn spec(&self, base: usize, id: &str, mode: PidNamespace) -> JailSpec {
        let (first, last) = self.uids(base);
        JailSpec::new(id, Binaries::stand_ins().firecracker())
            .user(User::Leased { first, last })
            .pid_namespace(mode)
            .ready_within(Duration::from_secs(60))
    }
}

/// Numbers that look random (xorshift).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 >> 33).unwrap() % sides
    }
}

/// One launcher and what it holds.
struct Rival {
    ground: Ground,
    jailers: [Jailer; 2],
    dice: Dice,
    held: BTreeMap<(usize, usize), Vm>,
}

impl Rival {
    fn play(&mut self, until: Instant) {
        while Instant::now() < until {
            let target = (self.dice.roll(2), self.dice.roll(IDS.len()));
            self.assert_held(target);
            match self.dice.roll(12) {
                0..=3 => self.launch(target),
                4 => self.adopt(target),
                5 | 6 => self.teardown(target),
                7 => self.list(target.0),
                8 => drop(self.check("sweep", &[], |it| it.jailers[target.0].sweep())),
                9 => self.let_go(target, false),
                10 => self.let_go(target, true),
                _ => self.prepare(target),
            }
        }
    }

    /// Calls a verb; an error must have one of these kinds.
    #[track_caller]
    fn check<T>(
        &self,
        verb: &str,
        allowed: &[ErrorKind],
        call: impl FnOnce(&Self) -> VmRuntimeResult<T>,
    ) -> Option<T> {
        match within(verb, OWN, || call(self)) {
            Ok(value) => Some(value),
            Err(error) if allowed.contains(&error.kind()) => None,
            Err(error) => panic!("{verb}: {error}: {error:?}"),
        }
    }

    /// The file that whoever holds a VM has made.
    fn claim(&self, (base, id): (usize, usize)) -> PathBuf {
        self.ground.dir.join(format!("held-{base}-{id}"))
    }

    /// Remembers a VM that was launched or adopted.
    #[track_caller]
    fn hold(&mut self, target: (usize, usize), vm: Vm) {
        let claim = self.claim(target);
        if let Ok(other) = fs::read_to_string(&claim) {
            // One that was killed holds nothing.
            let alive = Path::new("/proc").join(&other).join("exe").read_link().is_ok();
            assert!(!alive, "process {other} holds {target:?} as well");
        }
        fs::write(&claim, std::process::id().to_string()).unwrap();
        assert!(self.held.insert(target, vm).is_none());
    }

    /// Checks that a held VM still runs, and is the same VM.
    fn assert_held(&self, target: (usize, usize)) {
        let Some(vm) = self.held.get(&target) else { return };
        assert_eq!(vm.wait_timeout(Duration::ZERO).unwrap(), None, "{target:?} was killed");
        let info = self.check("api", &[], |_| vm.api()?.instance_info()).unwrap();
        assert_eq!(info.id, vm.jail_id().as_str());
        self.check("inspect", &[], |_| vm.inspect());
    }

    fn launch(&mut self, target: (usize, usize)) {
        let modes = [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host];
        let spec = self.ground.spec(target.0, IDS[target.1], modes[self.dice.roll(3)]);
        let refused = [ErrorKind::Busy, ErrorKind::Running, OTHER_BASE];
        let launched = self.check("launch", &refused, |it| it.jailers[target.0].launch(&spec));
        if let Some(vm) = launched {
            assert!(!self.held.contains_key(&target), "launched what is held: {target:?}");
            self.hold(target, vm);
        }
    }

    fn prepare(&mut self, target: (usize, usize)) {
        let spec = self.ground.spec(target.0, IDS[target.1], PidNamespace::default());
        let plan = self.check("plan", &[], |it| it.jailers[target.0].plan(&spec)).unwrap();
        let refused = [ErrorKind::Busy, ErrorKind::Running, OTHER_BASE];
        let prepared = self.check("prepare", &refused, |_| plan.prepare(&CopyOptions::new()));
        assert!(prepared.is_none() || !self.held.contains_key(&target), "prepared what is held");
    }

    fn adopt(&mut self, target: (usize, usize)) {
        let held = self.held.contains_key(&target);
        let refused =
            if held { vec![ErrorKind::Busy] } else { vec![ErrorKind::Busy, ErrorKind::NotFound] };
        let adopted = self.check("adopt", &refused, |it| it.jailers[target.0].adopt(IDS[target.1]));
        if let Some(vm) = adopted {
            assert!(!held, "adopted what is held: {target:?}");
            self.hold(target, vm);
        }
    }

    fn teardown(&mut self, target: (usize, usize)) {
        let report = self
            .check("teardown", &[ErrorKind::Busy], |it| it.jailers[target.0].remove(IDS[target.1]));
        assert!(report.is_none() || !self.held.contains_key(&target), "tore down what is held");
    }

    /// All that exist throughout are in the list, running, and nothing is damaged.
    fn list(&mut self, base: usize) {
        let list = self.check("list", &[], |it| it.jailers[base].list()).unwrap();
        let running = |id: &str, pid: Option<u32>| {
            list.jails.iter().any(|jail| {
                jail.vm_id.as_deref() == Some(id)
                    && matches!(jail.state, JailState::Running { pid: found } if pid.is_none_or(|pid| pid == found))
            })
        };
        assert!(running(ANCHORS[base], None), "the anchor is missed: {list:?}");
        for ((_, id), vm) in self.held.iter().filter(|((of, _), _)| *of == base) {
            assert!(running(IDS[*id], Some(vm.pid())), "{id} is missed: {list:?}");
        }
        assert!(
            list.jails.iter().all(|jail| !matches!(jail.state, JailState::Damaged { .. })),
            "{list:?}"
        );
    }

    fn let_go(&mut self, target: (usize, usize), kill: bool) {
        let Some(vm) = self.held.remove(&target) else { return };
        // Before the lock goes.
        fs::remove_file(self.claim(target)).unwrap();
        if kill {
            self.check("kill", &[], |_| vm.kill());
        }
    }
}

fn play() {
    let text = std::env::var(ENV).unwrap();
    let mut parts = text.split('\t');
    let mut next = || parts.next().unwrap().to_owned();
    let (seed, seconds) = (next().parse().unwrap(), next().parse().unwrap());
    let ground = Ground { cgroup_parent: next(), dir: PathBuf::from(next()) };
    let jailers = [ground.jailer(0), ground.jailer(1)];
    let mut rival = Rival { ground, jailers, dice: Dice(seed), held: BTreeMap::new() };
    rival.play(Instant::now() + Duration::from_secs(seconds));
}

/// Runs the rivals; kills one now and then, and starts another in its place.
fn fight(ground: &Ground, seed: u64, seconds: u64) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut failures = Vec::new();
    let log = |number: u64| ground.dir.join(format!("rival-{number}.log"));
    let start = |number: u64, seconds: u64| {
        let file = fs::File::create(log(number)).unwrap();
        let seed = (seed ^ number.wrapping_mul(0x9E37_79B9_7F4A_7C15)) | 1;
        let text = format!("{seed}\t{seconds}\t{}\t{}", ground.cgroup_parent, ground.dir.display());
        let mut command = testkit::reenter(NAME, RIVAL);
        command.env(ENV, text).env("RUST_BACKTRACE", "0");
        command.stdout(file.try_clone().unwrap()).stderr(file);
        KillOnDrop::spawn(&mut command)
    };
    let mut rivals: Vec<_> = (0..RIVALS).map(|number| (number, start(number, seconds))).collect();
    let (mut dice, mut number, mut killed) = (Dice(seed | 1), RIVALS, 0);
    while Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50 + dice.roll(200) as u64));
        let victim = dice.roll(rivals.len());
        let (_, child) = &mut rivals[victim];
        if child.try_wait().unwrap().is_none() && dice.roll(3) == 0 {
            child.kill().unwrap();
            child.wait().unwrap();
            killed += 1;
            let left = until.saturating_duration_since(Instant::now()).as_secs();
            rivals[victim] = (number, start(number, left));
            number += 1;
        }
    }
    let deadline = Instant::now() + Duration::from_secs(120);
    for (number, child) in &mut rivals {
        while child.try_wait().unwrap().is_none() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        match child.try_wait().unwrap() {
            Some(status) if status.success() => {}
            status => {
                let text = fs::read_to_string(log(*number)).unwrap_or_default();
                let from = text.find("panicked at").unwrap_or(text.len().saturating_sub(500));
                let verb = text[..from].rfind("\n> ").unwrap_or(from);
                failures
                    .push(format!("rival {number}: {status:?} (none: hangs)\n{}", &text[verb..]));
            }
        }
    }
    println!("seed {seed}: {number} launchers, {killed} killed");
    failures
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn rivals_hold_what_they_hold() {
    if testkit::role().as_deref() == Some(RIVAL) {
        return play();
    }
    let seed = match std::env::var(SEED_ENV) {
        Ok(seed) => seed.parse().expect("a number"),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).unwrap().subsec_nanos().into(),
    };
    println!("{SEED_ENV}={seed}");
    // What a killed launcher leaves is reaped by us.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).unwrap();
    let scratch = Scratch::new("rivals");
    let ground =
        Ground { dir: scratch.path().to_owned(), cgroup_parent: testkit::unique("rivals") };
    let anchors = [0, 1].map(|base| {
        fs::create_dir(ground.dir.join(format!("base-{base}"))).unwrap();
        ground
            .jailer(base)
            .launch(&ground.spec(base, ANCHORS[base], PidNamespace::default()))
            .unwrap()
    });
    let mut failures = fight(&ground, seed, if testkit::long() { 60 } else { 10 });
    for (base, anchor) in anchors.into_iter().enumerate() {
        let jailer = ground.jailer(base);
        if !matches!(anchor.wait_timeout(Duration::ZERO), Ok(None)) {
            failures.push(format!("the anchor of base {base} was killed"));
        }
        drop(anchor);
        for id in IDS.into_iter().chain([ANCHORS[base]]) {
            if let Err(error) = jailer.teardown(id) {
                failures.push(format!("teardown of {id}: {error:?}"));
            }
        }
        if let Err(error) = jailer.sweep() {
            failures.push(format!("sweep: {error:?}"));
        }
        let list = jailer.list().unwrap();
        if !list.jails.is_empty() || !list.problems.is_empty() {
            failures.push(format!("left: {list:?}"));
        }
        let (first, last) = ground.uids(base);
        for uid in first..=last {
            let left = left::of(uid, "?", &jailer.config().chroot_base, &ground.cgroup_parent);
            failures.extend(left.into_iter().map(|left| format!("left: {left}")));
            left::kill_all(uid);
        }
    }
    let groups = testkit::cgroups_named(&ground.cgroup_parent, "");
    for dir in groups.iter().flat_map(|top| fs::read_dir(top).unwrap().flatten()) {
        if dir.path().is_dir() {
            failures.push(format!("left: control group {}", dir.path().display()));
        }
    }
    testkit::remove_cgroup(&ground.cgroup_parent);
    assert!(failures.is_empty(), "seed {seed}:\n{}", failures.join("\n"));
}

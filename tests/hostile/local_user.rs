//! A local user without privileges, while root's launcher takes VMs through their lives.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;

use microvm_runtime::{Drive, PidNamespace};
use testkit::{Binaries, KillOnDrop, Scratch};

use crate::host::{Bystanders, Place};
use crate::launcher::{self, Mounts};
use crate::usage::Usage;
use crate::{left, verbs};

const NAME: &str = "local_user::a_local_user_blocks_and_kills_nothing";
const DIR_ENV: &str = "MICROVM_TEST_HOSTILE_DIR";
const GROUP_ENV: &str = "MICROVM_TEST_HOSTILE_GROUP";
const UID: u32 = 1_590_000;
const ATTACKER: u32 = UID + 8;
const ID: &str = "target";

fn place() -> Place {
    Place {
        dir: PathBuf::from(std::env::var_os(DIR_ENV).unwrap()),
        cgroup_parent: std::env::var(GROUP_ENV).unwrap(),
        uid: UID,
        cgroup_v2: true,
    }
}

/// Launches, adopts and removes a VM in each pid namespace mode, and expects the results of a host without an attacker.
fn play() {
    let place = place();
    let drive = place.dir.join("drive");
    let mut bystanders = Bystanders::start(&place, ID);
    let jailer = place.jailer();
    let usage = Usage::begin();
    for round in 0..if testkit::long() { 30 } else { 3 } {
        for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
            println!("round {round}, {mode:?}");
            let spec = place.quiet(ID, UID).pid_namespace(mode);
            let spec = spec.drive(Drive::persistent("drive", &drive));
            let vm = verbs::launch(&jailer, &spec).expect("launch");
            verbs::look(&vm);
            verbs::disturb(&jailer, &spec);
            drop(vm);
            verbs::adopt_and_shut_down(&jailer, ID).expect("adopt");
            let vm = verbs::launch(&jailer, &spec).expect("launch again");
            verbs::kill(&vm);
            drop(vm);
            verbs::tear_down(&jailer, ID).expect("teardown");
            let left = left::of(UID, ID, &place.base(), &place.cgroup_parent);
            assert!(left.is_empty(), "left after the teardown:\n      {}", left.join("\n      "));
            bystanders.assert_unharmed();
        }
    }
    assert!(!left::processes(ATTACKER).is_empty(), "the attacker was killed");
    usage.assert_bounded();
    bystanders.end(&place);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_local_user_blocks_and_kills_nothing() {
    match testkit::role().as_deref() {
        Some("launcher") => return play(),
        Some(launcher::REAPER) => return launcher::reap(testkit::reenter(NAME, "launcher")),
        _ => {}
    }
    let scratch = Scratch::new("local");
    // Others may make what they like beside the base.
    let dir = scratch.dir("open");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o1777)).unwrap();
    fs::create_dir(dir.join("base")).unwrap();
    let drive = dir.join("drive");
    fs::write(&drive, vec![7; 1 << 16]).unwrap();
    fs::set_permissions(&drive, fs::Permissions::from_mode(0o644)).unwrap();

    // The very arguments of the jailer of the VM under attack.
    let program = dir.join("hostile");
    fs::copy(Binaries::find().hostile(), &program).unwrap();
    let mut attacker = Command::new(&program);
    attacker.arg("--local-user").arg(dir.join("base")).arg(&drive);
    attacker.arg(Binaries::find().jailer()).args(["--id", ID, "--exec-file"]);
    attacker.arg(Binaries::stand_ins().firecracker());
    attacker.args(["--uid", &UID.to_string(), "--gid", &UID.to_string(), "--chroot-base-dir"]);
    attacker.arg(dir.join("base")).stdout(Stdio::piped()).current_dir("/");
    let mut attacker = KillOnDrop::spawn(&mut testkit::as_user(attacker, ATTACKER));
    let said = BufReader::new(attacker.stdout.take().unwrap()).lines().next();
    assert_eq!(said.unwrap().unwrap(), "attacking");
    std::thread::sleep(Duration::from_millis(100));

    let group = testkit::unique("local");
    let mut command = testkit::reenter(NAME, launcher::REAPER);
    command.env(DIR_ENV, &dir).env(GROUP_ENV, &group);
    let result = launcher::run(command, Mounts::Host);
    let harassed = attacker.try_wait().unwrap();
    for uid in UID..UID + 10 {
        left::kill_all(uid);
    }
    testkit::remove_cgroup(&group);
    assert_eq!(harassed, None, "the attacker has ended");
    result.unwrap_or_else(|why| panic!("{why}"));
}

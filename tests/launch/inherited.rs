//! Conditions that a launcher inherits: set, checked before anything is touched, or named.

use std::fs;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use microvm_runtime::{ErrorKind, JailSpec, Jailer, JailerConfig, Network, PidNamespace};
use nix::errno::Errno;
use nix::libc;
use nix::sys::stat::{Mode, umask};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::inherited;

use crate::host::{Host, LAUNCHER_SPEC, assert_says_hello};

const MINUTE: Duration = Duration::from_secs(60);

/// Launches a launcher makes under a condition that must not matter.
const LAUNCHES: usize = 15;

fn limit(resource: Resource, soft: u64, hard: Option<u64>) {
    let Rlimit { maximum, .. } = getrlimit(resource);
    setrlimit(resource, Rlimit { current: Some(soft), maximum: hard.or(maximum) }).unwrap();
}

fn errno(name: &str) -> Errno {
    if name == "ENOSYS" { Errno::ENOSYS } else { Errno::EPERM }
}

/// Puts this process into the state that `condition` names.
fn set(test: &str, condition: &str, spec: &JailSpec, config: &JailerConfig) {
    let (name, value) = condition.split_once(' ').unwrap_or((condition, ""));
    match name {
        "umask" => drop(umask(Mode::from_bits_truncate(u32::from_str_radix(value, 8).unwrap()))),
        "fsize" => limit(Resource::Fsize, value.parse().unwrap(), None),
        "nofile" => limit(Resource::Nofile, value.parse().unwrap(), Some(value.parse().unwrap())),
        "soft-nofile" => limit(Resource::Nofile, value.parse().unwrap(), None),
        "no-limits" => {
            limit(Resource::Core, 0, None);
            limit(Resource::Nproc, 1 << 10, None);
        }
        "children-ignored" => inherited::ignore_children(),
        "no-zombies" => inherited::keep_no_zombies(),
        "reaper" => inherited::reap_everything(),
        "alarms" => inherited::start_alarms(),
        "refuse-clone3" => inherited::refuse_call(libc::SYS_clone3, errno(value)),
        "refuse-openat2" => inherited::refuse_call(libc::SYS_openat2, errno(value)),
        "forks" => {
            std::thread::spawn(|| {
                loop {
                    Command::new("/bin/true").status().unwrap();
                }
            });
        }
        "threads" => {
            for _ in 0..300 {
                std::thread::spawn(|| std::thread::sleep(Duration::from_secs(3600)));
            }
        }
        "large" => drop(Box::leak(vec![1_u8; 2 << 30].into_boxed_slice()).first()),
        _ => crate::host_conditions::set(test, name, value, spec, config),
    }
}

/// Plays the launcher if this process is one: sets the condition, launches, and prints what came of it.
fn play(test: &str) -> bool {
    let Some(role) = testkit::role() else { return false };
    let (condition, launches) = role.split_once('/').unwrap();
    let jailer = Jailer::new(JailerConfig::try_from_env().unwrap());
    let spec: JailSpec = serde_json::from_str(&std::env::var(LAUNCHER_SPEC).unwrap()).unwrap();
    set(test, condition, &spec, jailer.config());
    for _ in 0..launches.parse().unwrap() {
        let vm = match jailer.launch(&spec) {
            Ok(vm) => vm,
            Err(error) => {
                println!("refused {:?}: {error}", error.kind());
                return true;
            }
        };
        assert_says_hello(&vm);
        let exit = vm.shutdown(MINUTE).unwrap();
        assert!(exit.success() || !testkit::kernel_tells_exit_of_strangers(), "{exit:?}");
        drop(vm);
        jailer.teardown(spec.vm_id()).unwrap();
    }
    println!("all went well");
    true
}

/// The name of a test of this module, or of another.
fn full_name(test: &str) -> String {
    if test.contains("::") { test.to_owned() } else { format!("inherited::{test}") }
}

/// Runs a launcher under a condition; returns what it printed.
fn under(host: &Host, test: &str, condition: &str, launches: usize, spec: &JailSpec) -> String {
    let mut command = host.launcher(&full_name(test), &format!("{condition}/{launches}"), spec);
    let output = command.stderr(Stdio::piped()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{condition}: {}: {said}{errors}", output.status);
    said
}

pub(crate) fn goes_well(test: &str, conditions: &[&str], launches: usize) {
    if play(&full_name(test)) {
        return;
    }
    for condition in conditions {
        let mut host = Host::new("inherited");
        let spec = host.idle("vm");
        let said = under(&host, test, condition, launches, &spec);
        assert!(said.contains("all went well"), "{condition}: {said}");
        host.assert_clean();
    }
}

pub(crate) fn is_refused(test: &str, condition: &str, words: &[&str]) {
    if play(&full_name(test)) {
        // A test may have more than one condition, and this process has one.
        std::process::exit(0);
    }
    let mut host = Host::new("inherited");
    let spec = host.idle("vm");
    let said = under(&host, test, condition, 1, &spec);
    for word in words.iter().copied().chain(["refused"]) {
        assert!(said.contains(word), "{condition}: no {word:?} in {said}");
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn umask_and_limits_do_not_matter() {
    goes_well(
        "umask_and_limits_do_not_matter",
        &["umask 777", "umask 277", "umask 000", "no-limits"],
        2,
    );
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn who_reaps_children_does_not_matter() {
    let conditions = ["children-ignored", "no-zombies", "reaper"];
    goes_well("who_reaps_children_does_not_matter", &conditions, LAUNCHES);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn alarms_forks_and_threads_do_not_matter() {
    goes_well("alarms_forks_and_threads_do_not_matter", &["alarms", "forks", "threads"], LAUNCHES);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_size_of_the_launcher_does_not_matter() {
    let test = "the_size_of_the_launcher_does_not_matter";
    if testkit::role().is_none() && testkit::available_memory() < 3 << 30 {
        return testkit::skip(test, "a launcher of 2 GiB needs 3 GiB of free memory");
    }
    goes_well(test, &["large"], 2);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_refused_clone3_is_named() {
    for condition in ["refuse-clone3 ENOSYS", "refuse-clone3 EPERM"] {
        is_refused("a_refused_clone3_is_named", condition, &["clone3", "seccomp"]);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_refused_openat2_is_named() {
    for condition in ["refuse-openat2 ENOSYS", "refuse-openat2 EPERM"] {
        is_refused("a_refused_openat2_is_named", condition, &["openat2", "seccomp"]);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_hard_limit_below_the_jailers_is_named() {
    if testkit::role().is_none() && may_raise_limits() {
        return testkit::skip(
            "a_hard_limit_below_the_jailers_is_named",
            "CAP_SYS_RESOURCE is here",
        );
    }
    is_refused(
        "a_hard_limit_below_the_jailers_is_named",
        "nofile 1024",
        &["RLIMIT_NOFILE", "2048"],
    );
}

fn may_raise_limits() -> bool {
    let sets = rustix::thread::capabilities(None).unwrap();
    sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE)
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_file_limit_below_an_image_is_named() {
    is_refused("a_file_limit_below_an_image_is_named", "fsize 16", &["RLIMIT_FSIZE", "16"]);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn too_few_descriptors_are_named() {
    if play("") {
        return;
    }
    let mut host = Host::new("inherited");
    let spec = host.idle("vm");
    let mut enough = 0;
    // From no descriptor at all for a launch up to enough.
    for files in (8..160).step_by(4) {
        let condition = format!("soft-nofile {files}");
        let said = under(&host, "too_few_descriptors_are_named", &condition, 1, &spec);
        if said.contains("all went well") {
            enough += 1;
            if enough == 3 {
                break;
            }
            continue;
        }
        let (_, hint) = said.split_once("RLIMIT_NOFILE, now ").expect(&said);
        let (now, hint) = hint.split_once(", to ").expect(&said);
        let (enough, _) = hint.split_once(" or more").expect(&said);
        assert_eq!(now, files.to_string(), "{condition}: {said}");
        assert!(enough.parse::<u64>().unwrap() > files, "{condition}: {said}");
        let left = host.jailer().list().unwrap().jails;
        assert!(left.is_empty(), "{condition}: {left:?}: {said}");
    }
    assert!(enough > 0, "no number was enough");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn an_endless_launch_is_no_panic() {
    let mut host = Host::new("endless");
    let spec = host.idle("vm").ready_within(Duration::MAX);
    let vm = host.jailer().launch(&spec).unwrap();
    assert!(vm.log().wait_for_line(|line| line.contains("Running"), Duration::MAX).is_some());
    vm.kill().unwrap();
    assert!(vm.log().wait_for_end(Duration::MAX));
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_43_a_frozen_parent_is_named_at_once() {
    for v2 in [true, false] {
        let mut host = Host::new("frozen");
        host.config.cgroup_v2 = v2;
        let spec = host.idle("vm").ready_within(MINUTE);
        let plan = host.jailer().plan(&spec).unwrap();
        let paths: Vec<_> = plan.leaf().map(|leaf| leaf.paths().collect()).unwrap_or_default();
        let parents = paths.iter().filter_map(|leaf| leaf.parent());
        let file = if v2 { "cgroup.freeze" } else { "freezer.state" };
        let frozen: Vec<_> = parents
            .filter_map(|parent| {
                fs::create_dir_all(parent).unwrap();
                let file = parent.join(file);
                file.exists().then_some(file)
            })
            .collect();
        if frozen.is_empty() {
            testkit::skip(
                &format!("row_43_a_frozen_parent_is_named_at_once (v2: {v2})"),
                "no freezer",
            );
            host.assert_clean();
            continue;
        }
        let (freeze, thaw) = if v2 { ("1", "0") } else { ("FROZEN", "THAWED") };
        frozen.iter().for_each(|file| fs::write(file, freeze).unwrap());
        let begun = Instant::now();
        let error = host.jailer().launch(&spec).unwrap_err();
        frozen.iter().for_each(|file| fs::write(file, thaw).unwrap());
        assert_eq!(error.kind(), ErrorKind::Cgroup, "{error}");
        assert!(error.to_string().contains("frozen"), "{error}");
        assert!(begun.elapsed() < MINUTE / 2, "it waited");
        assert!(host.jailer().list().unwrap().jails.is_empty());
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_namespace_of_a_process_is_joined() {
    let mut host = Host::new("procns");
    let netns = testkit::Netns::new(&host.scratch);
    let spec = host.idle("first").network(Network::Namespace(netns.path().into()));
    let first = host.jailer().launch(&spec).unwrap();
    let path = format!("/proc/{}/ns/net", first.pid());
    let spec = host.idle("second").network(Network::Namespace(path.clone().into()));
    let second = host.jailer().launch(&spec).unwrap();
    assert_eq!(second.inspect().unwrap().network_namespace, netns.inode());
    second.kill().unwrap();
    first.kill().unwrap();
    drop((first, netns));
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_44_shared_memory_of_a_jail_goes_with_it() {
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let mut host = Host::new("shm");
        let before = segments(&fs::read_to_string("/proc/sysvipc/shm").unwrap());
        let spec = host.hostile("vm", "system-v").pid_namespace(mode);
        let vm = host.jailer().launch(&spec).unwrap();
        let namespace = format!("--ipc=/proc/{}/ns/ipc", vm.pid());
        let mut inside = Command::new("nsenter");
        let inside = inside.args([&namespace, "cat", "/proc/sysvipc/shm"]).output().unwrap();
        let inside = segments(&String::from_utf8(inside.stdout).unwrap());
        let touched: u64 = inside.iter().map(|(_, resident)| resident).sum();
        assert!(touched >= 256 << 20, "nothing to be left: {inside:?}");
        let now = || segments(&fs::read_to_string("/proc/sysvipc/shm").unwrap());
        assert_eq!(now(), before, "the host has the VM's shared memory");
        let held = fs::File::open(format!("/proc/{}/ns/ipc", vm.pid())).unwrap();
        vm.kill().unwrap();
        drop(vm);
        host.jailer().teardown("vm").unwrap();
        // The namespace ends with its last user, which is the descriptor of this test.
        assert_eq!(rustix::fs::fstat(&held).unwrap().st_nlink, 1);
        drop(held);
        assert_eq!(now(), before);
        host.assert_clean();
    }
}

/// The segments in a `/proc/sysvipc/shm` (sysvipc(7)): the id, and the bytes of memory that the segment has.
fn segments(table: &str) -> Vec<(u64, u64)> {
    let mut lines = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let head = lines.next().unwrap();
    let column = |name: &str| head.iter().position(|it| *it == name).unwrap();
    let (id, resident) = (column("shmid"), column("rss"));
    lines.map(|line| (line[id].parse().unwrap(), line[resident].parse().unwrap())).collect()
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_59_no_key_outlives_a_vm() {
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let mut host = Host::new("keys");
        host.config.uid = 59_059;
        // An earlier run may have left some, without the filter.
        let before = testkit::keys_of(host.config.uid);
        let spec = host.hostile("vm", "keys").pid_namespace(mode);
        let vm = host.jailer().launch(&spec).unwrap();
        assert_eq!(testkit::keys_of(host.config.uid), before, "a VM has keys");
        vm.kill().unwrap();
        drop(vm);
        host.jailer().teardown("vm").unwrap();
        assert_eq!(testkit::keys_of(host.config.uid), before);
        host.assert_clean();
    }
}

/// Descriptors and threads of this process.
fn costs() -> (usize, usize) {
    let count = |dir: &str| fs::read_dir(dir).unwrap().count();
    (count("/proc/self/fd"), count("/proc/self/task"))
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_vm_costs_five_descriptors_and_no_thread() {
    const VMS: usize = 6;
    if testkit::role().is_some() {
        let jailer = Jailer::new(JailerConfig::try_from_env().unwrap());
        let spec: serde_json::Value =
            serde_json::from_str(&std::env::var(LAUNCHER_SPEC).unwrap()).unwrap();
        let mut vms = Vec::new();
        let mut first = (0, 0);
        for index in 0..VMS {
            let mut spec = spec.clone();
            spec["vm_id"] = format!("vm{index}").into();
            let spec: JailSpec = serde_json::from_value(spec).unwrap();
            vms.push(jailer.launch(&spec).unwrap());
            assert_says_hello(&vms[index]);
            // What closes the watch of a launch is a thread that ends.
            while costs().1 > 3 {
                std::thread::yield_now();
            }
            if index == 0 {
                first = costs();
            }
        }
        let last = costs();
        for vm in &vms {
            vm.kill().unwrap();
        }
        drop(vms);
        // The thread that reads for all ends with the last.
        let begun = Instant::now();
        while costs().1 > 2 {
            assert!(begun.elapsed() < MINUTE, "the thread stays");
            std::thread::yield_now();
        }
        println!("first {first:?} last {last:?}.");
        assert!(last.0 - first.0 <= 5 * (VMS - 1), "{first:?}, {last:?}");
        assert_eq!(first.1, last.1);
        return;
    }
    for v2 in [true, false] {
        let mut host = Host::new("costs");
        host.config.cgroup_v2 = v2;
        (0..VMS).for_each(|index| drop(host.idle(&format!("vm{index}"))));
        let spec = host.idle("any");
        let test = "inherited::a_vm_costs_five_descriptors_and_no_thread";
        let output = host.launcher(test, "launcher", &spec).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        host.assert_clean();
    }
}

//! Attacks of the threat model on removal: a jail is removed only after the proof that no process of the jail runs.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use jail_cmd::JailId;
use microvm_runtime::{CopyOptions, Drive, ErrorKind, JailSpec, JailState, PidNamespace, User, Vm};
use testkit::KillOnDrop;

use crate::host::Host;

/// Returns a spec with a uid that no other test uses.
fn alone(host: &mut Host, id: &str, uid: u32) -> JailSpec {
    host.idle(id).user(User::Fixed { uid, gid: uid })
}

fn jail_dir(host: &Host, spec: &JailSpec) -> PathBuf {
    host.jailer().plan(spec).unwrap().layout().jail_dir()
}

fn runs(vm: u32) -> bool {
    fs::read_to_string(format!("/proc/{vm}/stat"))
        .is_ok_and(|stat| !stat.rsplit_once(") ").unwrap().1.starts_with(['Z', 'X']))
}

/// Leaves a VM running, as a launcher that was killed does.
fn left(host: &Host, spec: &JailSpec) -> u32 {
    let vm: Vm = host.jailer().launch(spec).unwrap();
    vm.pid()
}

fn state(host: &Host, jail: &Path) -> JailState {
    let list = host.jailer().list().unwrap();
    list.jails.into_iter().find(|listed| listed.path == jail).unwrap().state
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_39_an_unreadable_record_hides_no_vm() {
    let mut host = Host::new("unreadable");
    let damages: [fn(&Path); 4] = [
        |record| fs::write(record, "{").unwrap(),
        |record| fs::write(record, vec![b' '; 2 << 20]).unwrap(),
        |record| fs::remove_file(record).unwrap(),
        |record| {
            let text = fs::read_to_string(record).unwrap();
            fs::write(record, text.replacen("\"format\": ", "\"format\": 9", 1)).unwrap();
        },
    ];
    for damage in damages {
        let user = User::Leased { first: 56_000, last: 56_009 };
        let spec = host.idle("tenant/vm").user(user);
        let pid = left(&host, &spec);
        let jail = jail_dir(&host, &spec);
        damage(&jail.join("jail.json"));
        assert!(matches!(state(&host, &jail), JailState::Damaged { .. }));
        let swept = host.jailer().sweep().unwrap();
        assert!(swept.uids.is_empty() && swept.problems.len() == 1, "{swept:?}");
        assert!(runs(pid), "a sweep ends nothing that runs");
        let again = host.jailer().launch(&spec).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::Record, "{again}");
        let id = JailId::for_vm("tenant/vm").unwrap();
        let report = host.jailer().remove_jail(&id).unwrap();
        assert!(!runs(pid), "{report:?}");
        assert!(report.uid.is_some() && report.jails == [jail], "{report:?}");
    }
    host.assert_clean();
}

/// Becomes the hostile VMM that holds, with another root directory and the uid 56010.
fn hold_in_root(root: &str) -> ! {
    use std::os::unix::process::CommandExt as _;
    nix::unistd::chroot(root).unwrap();
    nix::unistd::chdir("/").unwrap();
    let mut hold = Command::new("/hold");
    hold.env("MICROVM_HOSTILE_HOLD", "1").gid(56_010).uid(56_010);
    panic!("exec /hold: {}", hold.exec())
}

/// Without a leaf and a record, a process of the jail's uid in an unknown root directory may be the VM's.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_39_what_cannot_be_proven_is_not_removed() {
    if let Some(role) = testkit::role() {
        hold_in_root(role.strip_prefix("stranger ").unwrap());
    }
    let mut host = Host::new("unproven");
    let spec = alone(&mut host, "vm", 56_010);
    let prepared = host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap();
    let jail = prepared.plan().layout().jail_dir();
    drop(prepared);
    fs::write(jail.join("jail.json"), "{").unwrap();
    let root = jail.join("root");
    std::os::unix::fs::chown(&root, Some(56_010), Some(56_010)).unwrap();
    // In a root directory that is neither the host's nor a jail's.
    let elsewhere = host.scratch.dir("elsewhere");
    let mount = testkit::Tmpfs::mount(&elsewhere, "mode=0755");
    fs::copy(host.binaries.hostile(), elsewhere.join("hold")).unwrap();
    let role = format!("stranger {}", elsewhere.display());
    let mut stranger =
        testkit::reenter("removal::row_39_what_cannot_be_proven_is_not_removed", role);
    let mut stranger = KillOnDrop::spawn(stranger.stdin(Stdio::null()));
    while fs::metadata(format!("/proc/{}", stranger.id())).unwrap().uid() != 56_010 {
        assert_eq!(stranger.try_wait().unwrap(), None, "the stranger has exited");
        std::thread::yield_now();
    }
    // Nothing is above it any more, as in a mount namespace of its own.
    nix::mount::umount2(&elsewhere, nix::mount::MntFlags::MNT_DETACH).unwrap();
    let error = host.jailer().teardown("vm").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Record, "{error}");
    assert!(error.to_string().contains(&stranger.id().to_string()), "{error}");
    assert!(jail.join("jail.json").exists() && runs(stranger.id()));
    drop(stranger);
    drop(mount);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_39_vm_ids_are_bounded() {
    let mut host = Host::new("longid");
    let huge = JailSpec::new("\u{1}".repeat(180_000), host.binaries.firecracker());
    let error = host.jailer().plan(&huge).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().len() < 1000, "{}", error.to_string().len());
    // As long as it may be, and still read back.
    let longest = "\u{1}".repeat(1024);
    let spec = host.hello(&longest);
    drop(host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap());
    assert_eq!(host.jailer().list().unwrap().jails[0].vm_id.as_deref(), Some(&*longest));
    // What would fill the record is refused as a whole, before anything is touched.
    let mut large = host.hello("large");
    for n in 0..400 {
        large = large.drive(Drive::private(format!("d{n}"), format!("/{}", "x".repeat(3000))));
    }
    let error = host.jailer().plan(&large).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
    host.assert_clean();
}

/// Runs `body` in a new process with this soft limit of descriptors, and without control groups if `bare`.
fn in_own_process(test: &str, descriptors: u64, bare: bool, body: impl FnOnce()) {
    if testkit::role().as_deref() != Some("launcher") {
        let status = testkit::reenter(test, "launcher").status().unwrap();
        assert!(status.success(), "{status}");
        return;
    }
    if bare {
        // No hierarchy is left to be found.
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
        nix::mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>).unwrap();
        let mut mounts: Vec<_> = testkit::mounts::all().into_iter().map(|it| it.point).collect();
        mounts.retain(|point| point.starts_with("/sys/fs/cgroup"));
        for mount in mounts.iter().rev() {
            nix::mount::umount2(mount, nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
    }
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: Some(descriptors), maximum }).unwrap();
    body();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_40_a_crowd_needs_no_descriptors() {
    in_own_process("removal::row_40_a_crowd_needs_no_descriptors", 100, false, || {
        let mut host = Host::new("crowd");
        let spec = host.hostile("vm", "crowd").pid_namespace(PidNamespace::Host);
        let pid = left(&host, &spec);
        let jail = jail_dir(&host, &spec);
        assert!(matches!(state(&host, &jail), JailState::Running { .. }));
        drop(host.jailer().adopt("vm").unwrap());
        let report = host.jailer().remove("vm").unwrap();
        assert!(report.killed > 1000, "{report:?}");
        assert!(!runs(pid));
        host.assert_clean();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_51_without_a_leaf_nothing_survives() {
    in_own_process("removal::row_51_without_a_leaf_nothing_survives", 100, true, || {
        // A small crowd has more processes than the launcher has descriptors, and is searched in /proc without haste.
        for (mode, uid) in [("small-crowd", 56_030), ("other-root", 56_031), ("daemons", 56_032)] {
            let mut host = Host::new(mode);
            let user = User::Leased { first: uid, last: uid };
            let spec = host.hostile("vm", mode).pid_namespace(PidNamespace::Host).user(user);
            assert!(host.jailer().plan(&spec).unwrap().leaf().is_none());
            let pid = left(&host, &spec);
            let jail = jail_dir(&host, &spec);
            assert_eq!(state(&host, &jail), JailState::Running { pid }, "{mode}");
            match host.jailer().remove("vm") {
                Ok(report) => assert_eq!(report.uid, Some(uid), "{mode}: {report:?}"),
                Err(error) => {
                    // What cannot be told from another's is named, and the jail stays.
                    assert_eq!(error.kind(), ErrorKind::Record, "{mode}: {error}");
                    assert!(jail.exists(), "{mode}");
                    for process in fs::read_dir("/proc").unwrap().flatten() {
                        let of_vm = process.metadata().is_ok_and(|it| it.uid() == uid);
                        if let Some(pid) = of_vm.then(|| process.file_name().into_string().unwrap())
                        {
                            let pid = nix::unistd::Pid::from_raw(pid.parse().unwrap());
                            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL);
                        }
                    }
                }
            }
            assert!(!runs(pid), "{mode}");
            host.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_41_a_name_hides_no_jail() {
    let mut host = Host::new("names");
    for mode in ["name-bytes", "name-text", "argv-huge", "argv-of-a-jailer"] {
        let spec = host.hostile(mode, mode);
        let pid = left(&host, &spec);
        let jail = jail_dir(&host, &spec);
        assert_eq!(state(&host, &jail), JailState::Running { pid }, "{mode}");
        let vm = host.jailer().adopt(mode).unwrap();
        vm.inspect().unwrap();
        drop(vm);
        assert!(host.jailer().remove(mode).unwrap().killed > 0, "{mode}");
        assert!(!runs(pid), "{mode}");
    }
    host.assert_clean();
}

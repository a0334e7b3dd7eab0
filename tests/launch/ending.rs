//! The end of a VM: seen by several threads, in a leaf that somebody removed, and of many VMs at once.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::process::Stdio;
use std::sync::Barrier;
use std::time::Duration;

use microvm_runtime::{ErrorKind, ExitStatus, JailSpec, Jailer, JailerConfig, PidNamespace, Vm};
use testkit::KillOnDrop;

use crate::host::{Host, LAUNCHER_SPEC};

const HANG: Duration = Duration::from_secs(60);

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn threads_share_one_exit() {
    let mut host = Host::new("waiters");
    // No sum of durations panics, and for ever is for ever.
    let spec = host.idle("vm").ready_within(Duration::MAX);
    let vm = host.jailer().launch(&spec).unwrap();
    vm.api_within(Duration::MAX).unwrap().timeout(Duration::MAX).instance_info().unwrap();
    let all_wait = Barrier::new(3);
    let exits = std::thread::scope(|scope| {
        let waiters = [Duration::MAX, HANG].map(|timeout| {
            let (vm, all_wait) = (&vm, &all_wait);
            scope.spawn(move || {
                all_wait.wait();
                vm.wait_timeout(timeout).unwrap()
            })
        });
        all_wait.wait();
        let ended = vm.shutdown(Duration::MAX).unwrap();
        assert!(ended.success(), "{ended:?}");
        waiters.map(|waiter| (waiter.join().unwrap(), ended))
    });
    for (waited, ended) in exits {
        assert_eq!(waited, Some(ended));
    }
    // The status was reaped once, and is kept.
    assert!(vm.wait().unwrap().success() && vm.kill().unwrap().success());
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn start_kill_returns_at_once() {
    let mut host = Host::new("startkill");
    let vm = host.jailer().launch(&host.deaf("vm")).unwrap();
    vm.start_kill().unwrap();
    assert_eq!(vm.wait().unwrap().status, ExitStatus::Signaled(9));
    // The leaf may be another VM's now: nothing is sent any more.
    vm.start_kill().unwrap();
    drop(vm);
    host.assert_clean();
}

/// Moves the VM's processes out of the leaf and removes the leaf, as systemd may do.
fn remove_leaf(vm: &Vm) -> bool {
    let Ok(leaf) = vm.cgroup() else { return false };
    for path in leaf.paths() {
        let parent = path.parent().unwrap();
        for pid in fs::read_to_string(path.join("cgroup.procs")).unwrap().lines() {
            fs::write(parent.parent().unwrap().join("cgroup.procs"), pid).unwrap();
        }
        fs::remove_dir(path).unwrap();
    }
    true
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_removed_leaf_hides_no_status() {
    type End = fn(&Vm) -> ExitStatus;
    let ends: [(ExitStatus, End); 4] = [
        (ExitStatus::Signaled(9), |vm| vm.kill().unwrap().status),
        (ExitStatus::Exited(0), |vm| vm.shutdown(HANG).unwrap().status),
        (ExitStatus::Signaled(9), |vm| {
            vm.start_kill().unwrap();
            vm.wait().unwrap().status
        }),
        (ExitStatus::Signaled(9), |vm| {
            vm.start_kill().unwrap();
            vm.wait_timeout(HANG).unwrap().unwrap().status
        }),
    ];
    let mut host = Host::new("noleaf");
    for (status, end) in ends {
        let vm = host.jailer().launch(&host.idle("vm")).unwrap();
        if !remove_leaf(&vm) {
            return testkit::skip("a_removed_leaf_hides_no_status", "this host has no leaf");
        }
        assert_eq!(end(&vm), status);
        assert_eq!(vm.wait().unwrap().oom_killed, None, "the counter went with the leaf");
        drop(vm);
        host.jailer().teardown("vm").unwrap();
    }
    host.assert_clean();
}

/// A mount in one jail blocks the removal of that jail only.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn many_vms_end_together() {
    const MANY: usize = 12;
    let mut host = Host::new("many");
    let vms = (0..MANY)
        .map(|n| host.jailer().launch(&host.deaf(&format!("vm-{n}"))).unwrap())
        .collect::<Vec<_>>();
    let pids = vms.iter().map(Vm::pid).collect::<Vec<_>>();
    let jail = host.jailer().plan(&host.deaf("vm-7")).unwrap().layout().root();
    let mount = jail.join("mnt");
    fs::create_dir(&mount).unwrap();
    let bind = nix::mount::MsFlags::MS_BIND;
    nix::mount::mount(Some(&mount), &mount, None::<&str>, bind, None::<&str>).unwrap();
    let removed = host.jailer().remove_all(vms);
    nix::mount::umount2(&mount, nix::mount::MntFlags::MNT_DETACH).unwrap();
    assert_eq!(removed.len(), MANY);
    for (n, entry) in removed.iter().enumerate() {
        assert_eq!(entry.vm_id, format!("vm-{n}"));
        assert_eq!(entry.exit.as_ref().unwrap().status, ExitStatus::Signaled(9));
        match &entry.removal {
            Ok(report) => assert!(n != 7 && report.jails.len() == 1, "{n}: {report:?}"),
            Err(error) => assert!(n == 7 && error.kind() == ErrorKind::Mounted, "{n}: {error}"),
        }
        assert!(!std::path::Path::new(&format!("/proc/{}", pids[n])).exists(), "not reaped");
    }
    host.assert_clean();
}

/// The kernel sends SIGHUP and SIGCONT to a process group that becomes orphaned while a member is stopped (exit(3)).
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_94_a_stopped_vm_outlives_its_launcher() {
    let test = "ending::row_94_a_stopped_vm_outlives_its_launcher";
    if testkit::role().is_some() {
        let jailer = Jailer::new(JailerConfig::try_from_env().unwrap());
        let spec: JailSpec = serde_json::from_str(&std::env::var(LAUNCHER_SPEC).unwrap()).unwrap();
        println!("\nruns {}", jailer.launch(&spec).unwrap().pid());
        std::thread::sleep(Duration::from_secs(3600));
        return;
    }
    let mut host = Host::new("orphan");
    for mode in [PidNamespace::Host, PidNamespace::ByLauncher] {
        let spec = host.idle("vm").pid_namespace(mode);
        let mut command = host.launcher(test, "launcher", &spec);
        let mut launcher = KillOnDrop::spawn(command.stdout(Stdio::piped()));
        let mut lines = BufReader::new(launcher.stdout.take().unwrap()).lines().map(Result::unwrap);
        let pid = lines.find_map(|line| line.strip_prefix("runs ").map(str::to_owned)).unwrap();
        let stop = nix::sys::signal::Signal::SIGSTOP;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.parse().unwrap()), stop).unwrap();
        let state = || {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
        };
        while state() != 'T' {
            std::thread::yield_now();
        }
        launcher.kill().unwrap();
        launcher.wait().unwrap();
        assert_eq!(state(), 'T', "{mode:?}: the VMM got SIGCONT, and SIGHUP before");
        host.jailer().teardown("vm").unwrap();
    }
    host.assert_clean();
}

//! Attacks of the threat model by a running VM on its jail.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};

use microvm_runtime::{ByteSize, CopyOptions, ErrorKind, ExitStatus, Limits, PidNamespace};
use testkit::KillOnDrop;

use crate::host::{GID, Host, UID};

/// A host process that nobody of ours started for a VM.
fn bystander() -> KillOnDrop {
    KillOnDrop::spawn(Command::new("/bin/sh").args(["-c", "read line"]).stdin(Stdio::piped()))
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_23_forged_pid_file() {
    let mut host = Host::new("pidfile");
    let mut bystander = bystander();
    let spec = host.idle("vm").pid_namespace(PidNamespace::ByJailer);
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    let vm = host.jailer().launch(&spec).unwrap();
    let name = host.binaries.firecracker().canonicalize().unwrap().file_name().unwrap().to_owned();
    let pid_file = root.join(format!("{}.pid", name.to_str().unwrap()));
    assert!(pid_file.exists(), "there is nothing to rewrite");
    fs::remove_file(&pid_file).unwrap();
    fs::write(&pid_file, bystander.id().to_string()).unwrap();
    let pid = vm.pid();
    drop(vm);
    let vm = host.jailer().adopt("vm").unwrap();
    assert_eq!(vm.pid(), pid, "the pid file was believed");
    drop(vm);
    assert_eq!(host.jailer().remove("vm").unwrap().killed, 1);
    assert!(bystander.try_wait().unwrap().is_none(), "a host process was killed");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_24_planted_api_socket() {
    let mut host = Host::new("socket");
    let spec = host.idle("vm");
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    let vm = host.jailer().launch(&spec).unwrap();
    let socket = root.join("api.sock");
    fs::rename(&socket, root.join("moved")).unwrap();

    // A link to another socket of the host.
    let elsewhere = host.scratch.join("elsewhere.sock");
    let listener = UnixListener::bind(&elsewhere).unwrap();
    listener.set_nonblocking(true).unwrap();
    symlink(&elsewhere, &socket).unwrap();
    let error = vm.api().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Identity, "{error}: {error:?}");
    fs::remove_file(&socket).unwrap();

    // A socket of the jail's uid, which another process listens on.
    let impostor = UnixListener::bind(&socket).unwrap();
    chown(&socket, Some(UID), Some(GID)).unwrap();
    let error = vm.api().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Identity, "{error}: {error:?}");
    assert_eq!(
        listener.accept().unwrap_err().kind(),
        std::io::ErrorKind::WouldBlock,
        "the link was followed"
    );
    drop(impostor);
    fs::remove_file(&socket).unwrap();

    // Something that is no socket at all.
    fs::write(&socket, "HTTP/1.1 200 OK\r\n\r\n").unwrap();
    assert_eq!(vm.api().unwrap_err().kind(), ErrorKind::Identity);
    fs::remove_file(&socket).unwrap();

    // And a shutdown ends it all the same.
    assert!(!vm.shutdown(std::time::Duration::from_secs(1)).unwrap().success());
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_33_missing_leaf_fails() {
    let mut host = Host::new("noleaf");
    let spec = host.idle("vm");
    let prepared = host.jailer().plan(&spec).unwrap().prepare(&CopyOptions::new()).unwrap();
    let Some(leaf) = prepared.plan().leaf().cloned() else {
        return testkit::skip("row_33_missing_leaf_fails", "this host has no hierarchy for a leaf");
    };
    for path in leaf.paths() {
        fs::remove_dir(&path).unwrap();
    }
    let error = prepared.launch().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cgroup, "{error}: {error:?}");
    assert_eq!(host.jailer().list().unwrap().jails, [], "it was left running without limits");
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_36_no_descriptor_leaks() {
    let mut host = Host::new("fds");
    let secret = fs::File::open(host.scratch.file("secret", "secret")).unwrap();
    // As a careless library would: not close-on-exec.
    let leaky = rustix::io::dup(&secret).unwrap();
    assert!(!rustix::io::fcntl_getfd(&leaky).unwrap().contains(rustix::io::FdFlags::CLOEXEC));
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let spec = host.idle("vm").pid_namespace(mode);
        let vm = host.jailer().launch(&spec).unwrap();
        let seen = vm.inspect().unwrap();
        let leaked =
            seen.descriptors.iter().filter(|fd| fd.target.ends_with("secret")).collect::<Vec<_>>();
        assert!(leaked.is_empty(), "{mode:?}: {leaked:?}");
        vm.kill().unwrap();
        drop(vm);
        host.jailer().teardown("vm").unwrap();
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn oom_kill_is_reported() {
    const NAME: &str = "hostile::oom_kill_is_reported";
    if testkit::role().as_deref() == Some("hog") {
        // Held back until it is in the leaf.
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        let mut hoard = Vec::new();
        loop {
            hoard.push(vec![1u8; 1 << 20]);
        }
    }
    let mut host = Host::new("oom");
    let limits = Limits::new().memory_max(ByteSize::mib(64));
    let spec = host.idle("vm").limits(limits.clone());
    let vm = match host.jailer().launch(&spec) {
        Ok(vm) => vm,
        Err(error) if error.kind() == ErrorKind::Unsupported => {
            return testkit::skip("oom_kill_is_reported", &error.to_string());
        }
        Err(error) => panic!("{error}: {error:?}"),
    };
    assert!(vm.wait_timeout(std::time::Duration::ZERO).unwrap().is_none());
    let mut hog = KillOnDrop::spawn(
        testkit::reenter(NAME, "hog").stdin(Stdio::piped()).stdout(Stdio::null()),
    );
    vm.cgroup().unwrap().adopt(hog.id()).unwrap();
    drop(hog.stdin.take());
    assert!(!hog.wait().unwrap().success(), "it was stopped by the limit");
    assert_eq!(vm.kill().unwrap().oom_killed, Some(true));
    drop(vm);

    // And when the killer takes the VMM itself, that is how it ended.
    let vm = host.jailer().launch(&host.idle("taken").limits(limits)).unwrap();
    fs::write(format!("/proc/{}/oom_score_adj", vm.pid()), "1000").unwrap();
    // Two, so that neither has as much as the adjustment stands for, which is all there may be.
    let mut hogs = [(); 2].map(|()| {
        KillOnDrop::spawn(testkit::reenter(NAME, "hog").stdin(Stdio::piped()).stdout(Stdio::null()))
    });
    for hog in &mut hogs {
        vm.cgroup().unwrap().adopt(hog.id()).unwrap();
    }
    for hog in &mut hogs {
        drop(hog.stdin.take());
    }
    let exit = vm.wait().unwrap();
    assert_eq!((exit.status, exit.oom_killed), (ExitStatus::Signaled(9), Some(true)));
    drop((hogs, vm));

    // A VM that is only killed was not.
    let spec = host.idle("other");
    let vm = host.jailer().launch(&spec).unwrap();
    assert_ne!(vm.kill().unwrap().oom_killed, Some(true));
    drop(vm);
    host.assert_clean();
}

/// A stopped VMM accepts no connection, so the socket's backlog fills up.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_48_backlog_delays_no_shutdown() {
    // A full backlog takes 4096 descriptors and one by default (`net.core.somaxconn`).
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let (enough, maximum) = (8192, limit.maximum.map(|most| most.max(8192)));
    let limit =
        rustix::process::Rlimit { current: limit.current.map(|now| now.max(enough)), maximum };
    rustix::process::setrlimit(rustix::process::Resource::Nofile, limit).unwrap();
    let mut host = Host::new("backlog");
    let spec = host.idle("vm");
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    let vm = host.jailer().launch(&spec).unwrap();
    let pid = nix::unistd::Pid::from_raw(i32::try_from(vm.pid()).unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGSTOP).unwrap();
    let mut crowd = Vec::new();
    loop {
        use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).unwrap();
        let address = SocketAddrUnix::new(root.join("api.sock")).unwrap();
        match rustix::net::connect(&socket, &address) {
            Ok(()) => crowd.push(socket),
            Err(errno) => break assert_eq!(errno, rustix::io::Errno::AGAIN),
        }
    }
    let error = vm.api_within(std::time::Duration::from_millis(50)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
    let begun = std::time::Instant::now();
    let exit = vm.shutdown(std::time::Duration::from_millis(100)).unwrap();
    assert_eq!(exit.status, ExitStatus::Signaled(9));
    assert!(begun.elapsed() < std::time::Duration::from_secs(8), "{:?}", begun.elapsed());
    drop((vm, crowd));
    host.assert_clean();
}

//! Console and log: two streams that outlive their launcher.

use std::fs::{self, OpenOptions};
use std::io::{BufRead as _, BufReader, ErrorKind as Io, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Stdio;
use std::sync::mpsc;
use std::time::Duration;

use microvm_runtime::{
    Console, ErrorKind, FirecrackerOptions, JailSpec, Jailer, JailerConfig, PidNamespace,
};
use testkit::{GUEST_LINE, KillOnDrop};

use crate::host::{GID, Host, LAUNCHER_SPEC, UID, assert_says_hello};

const MINUTE: Duration = Duration::from_secs(60);

/// The number of launches; the guest's line must be whole in each.
const LAUNCHES: usize = 20;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_console_is_the_guests_alone() {
    let mut host = Host::new("console");
    for round in 0..LAUNCHES {
        let spec = if round % 2 == 0 { host.idle("vm") } else { host.hello("vm").no_api() };
        let vm = host.jailer().launch(&spec).unwrap();
        assert_says_hello(&vm);
        let exit = if round % 2 == 0 { vm.shutdown(MINUTE) } else { vm.wait() };
        assert!(exit.unwrap().success());
        let console = vm.console().unwrap();
        assert!(console.wait_for_end(MINUTE));
        assert_eq!(console.text().trim_end(), GUEST_LINE, "round {round}");
        assert!(vm.log().wait_for_end(MINUTE));
        let log = vm.log().text();
        assert!(log.contains("Running Firecracker") && !log.contains(GUEST_LINE), "{log}");
    }
    host.assert_clean();
}

/// Fills a FIFO that nobody reads.
fn fill(fifo: &Path) {
    let mut fifo = OpenOptions::new()
        .write(true)
        .custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed())
        .open(fifo)
        .unwrap();
    loop {
        match fifo.write(&[b'x'; 4096]) {
            Ok(_) => {}
            Err(error) if error.kind() == Io::WouldBlock => return,
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn vm_without_reader_runs() {
    for mode in [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host] {
        let mut host = Host::new("unread");
        let spec = host.idle("vm").pid_namespace(mode);
        let jail = host.jailer().plan(&spec).unwrap().layout().jail_dir();
        let vm = host.jailer().launch(&spec).unwrap();
        assert_says_hello(&vm);
        drop(vm);
        let fifos = ["console", "stderr", "root/firecracker.log"].map(|name| jail.join(name));
        // Opened for reading and never read, so that a write does not fail for want of a reader.
        let kept = fifos
            .each_ref()
            .map(|fifo| OpenOptions::new().read(true).write(true).open(fifo).unwrap());
        fifos.iter().for_each(|fifo| fill(fifo));
        let vm = host.jailer().adopt("vm").unwrap();
        // Each request is a line of the log.
        for _ in 0..3 {
            assert_eq!(vm.api().unwrap().instance_info().unwrap().id, "vm");
        }
        let exit = vm.shutdown(MINUTE).unwrap();
        let unknown = !testkit::kernel_tells_exit_of_strangers() && mode == PidNamespace::ByJailer;
        assert!(exit.success() || unknown, "{mode:?}: {exit:?}");
        drop((vm, kept));
        host.assert_clean();
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn streams_survive_their_launcher() {
    if testkit::role().is_some() {
        let jailer = Jailer::new(JailerConfig::try_from_env().unwrap());
        let spec: JailSpec = serde_json::from_str(&std::env::var(LAUNCHER_SPEC).unwrap()).unwrap();
        let vm = jailer.launch(&spec).unwrap();
        assert_says_hello(&vm);
        println!("ready");
        std::thread::sleep(Duration::from_secs(3600));
        return;
    }
    let mut host = Host::new("killed");
    let spec = host.idle("vm");
    let jail = host.jailer().plan(&spec).unwrap().layout().jail_dir();
    let mut command = host.launcher("streams::streams_survive_their_launcher", "launcher", &spec);
    command.stdout(Stdio::piped());
    let mut launcher = KillOnDrop::spawn(&mut command);
    let mut said = BufReader::new(launcher.stdout.take().unwrap()).lines();
    assert!(said.any(|line| line.unwrap().ends_with("ready")));
    launcher.kill().unwrap();
    launcher.wait().unwrap();

    let vm = host.jailer().adopt("vm").unwrap();
    vm.api().unwrap().instance_info().unwrap();
    let is_request = |line: &str| line.contains("request on \"/\"");
    assert!(vm.log().wait_for_line(is_request, MINUTE).is_some(), "{}", vm.log().text());
    // The guest has said all it says; this stands for more.
    let mut console = OpenOptions::new().write(true).open(jail.join("console")).unwrap();
    console.write_all(b"the guest speaks on\n").unwrap();
    let line = vm.console().unwrap().wait_for_line(|line| line == "the guest speaks on", MINUTE);
    assert!(line.is_some(), "{}", vm.console().unwrap().text());
    drop(console);
    vm.shutdown(MINUTE).unwrap();
    assert!(vm.console().unwrap().wait_for_end(MINUTE));
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn subscribers_get_every_byte() {
    let mut host = Host::new("subscribe");
    let spec = host.idle("vm");
    let jail = host.jailer().plan(&spec).unwrap().layout().jail_dir();
    let vm = host.jailer().launch(&spec).unwrap();
    let (sender, receiver) = mpsc::channel();
    let mut seen = vm.console().unwrap().subscribe(move |piece| {
        let _ = sender.send(piece.to_vec());
    });
    vm.console().unwrap().subscribe(|_| panic!("the test's own"));
    assert_says_hello(&vm);
    let mut console = OpenOptions::new().write(true).open(jail.join("console")).unwrap();
    console.write_all(b"more\n").unwrap();
    drop(console);
    vm.kill().unwrap();
    assert!(vm.console().unwrap().wait_for_end(MINUTE));
    // Until the stream's end, which drops the sender.
    seen.extend(receiver.iter().flatten());
    assert_eq!(seen, vm.console().unwrap().tail());
    assert!(String::from_utf8_lossy(&seen).ends_with("more\n"), "{seen:?}");
    drop(vm);
    host.assert_clean();
}

/// The log's name in the jail is the VM's to change.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_25_replaced_log() {
    let mut host = Host::new("log");
    let spec = host.idle("vm").firecracker(FirecrackerOptions::new().metrics());
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    let mut vm = host.jailer().launch(&spec).unwrap();
    let secret = host.scratch.file("secret", "the host's own\n");
    type Plant<'a> = &'a dyn Fn(&Path);
    let planted: [(&str, Plant<'_>); 4] = [
        ("link", &|name| symlink(&secret, name).unwrap()),
        ("hard link", &|name| fs::hard_link(&secret, name).unwrap()),
        ("terabyte", &|name| fs::File::create(name).unwrap().set_len(1 << 40).unwrap()),
        ("nothing", &|_| {}),
    ];
    let log = root.join("firecracker.log");
    for (what, plant) in planted {
        let _ = fs::remove_file(&log);
        plant(&log);
        drop(vm);
        vm = host.jailer().adopt("vm").unwrap();
        assert!(vm.log().text().is_empty(), "{what}: {}", vm.log().text());
    }
    // A FIFO of the VM's own is read, and does not make anybody wait.
    let _ = fs::remove_file(&log);
    nix::unistd::mkfifo(&log, nix::sys::stat::Mode::S_IRWXU).unwrap();
    chown(&log, Some(UID), Some(GID)).unwrap();
    drop(vm);
    vm = host.jailer().adopt("vm").unwrap();
    assert!(vm.log().text().is_empty());

    let metrics = root.join("metrics");
    vm.metrics_tail(1 << 16).unwrap();
    fs::remove_file(&metrics).unwrap();
    symlink(&secret, &metrics).unwrap();
    assert_eq!(vm.metrics_tail(1 << 16).unwrap_err().kind(), ErrorKind::Untrusted);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn console_file_is_appended() {
    let mut host = Host::new("file");
    let path = host.scratch.file("console.txt", "an earlier tenant\n");
    for mode in [PidNamespace::ByLauncher, PidNamespace::Host] {
        let spec = host.hello("vm").no_api().pid_namespace(mode).console(Console::file(&path));
        let vm = host.jailer().launch(&spec).unwrap();
        assert!(vm.console().is_none());
        vm.wait().unwrap();
        assert!(vm.log().wait_for_end(MINUTE));
        assert!(vm.log().text().contains("Running Firecracker"));
    }
    let said = fs::read_to_string(&path).unwrap();
    let lines: Vec<_> = said.lines().collect();
    assert_eq!(lines, ["an earlier tenant", GUEST_LINE, GUEST_LINE]);
    fs::remove_file(path).unwrap();
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn prepare_is_idempotent_for_each_console() {
    let mut host = Host::new("idempotent");
    let file = host.scratch.join("console.txt");
    for console in [Console::default(), Console::tail(10), Console::file(file), Console::null()] {
        let spec = host.idle("vm").console(console);
        let plan = host.jailer().plan(&spec).unwrap();
        let first = plan.prepare(&Default::default()).unwrap().report();
        let plan: microvm_runtime::Plan =
            serde_json::from_str(&serde_json::to_string(&plan).unwrap()).unwrap();
        let again = plan.prepare(&Default::default()).unwrap().report();
        assert_eq!(first, again, "{:?}", plan);
    }
    host.assert_clean();
}

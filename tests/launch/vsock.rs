//! The guest's vsock: connections to the guest and from the guest, and a VM that attacks them.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use microvm_runtime::{Boot, ErrorKind, JailSpec, PidNamespace, Vm};
use testkit::BinaryKind;

use crate::host::{GID, Host, UID};

const MODES: [PidNamespace; 3] =
    [PidNamespace::ByLauncher, PidNamespace::ByJailer, PidNamespace::Host];
const MINUTE: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

/// The services of the stand-in's guest.
const ECHO: u32 = 52;
const CALL_BACK: u32 = 53;

fn with_vsock(spec: JailSpec) -> JailSpec {
    spec.boot(Boot::new().vcpus(1).memory_mib(128).kernel_args("console=ttyS0").vsock(3))
}

/// Returns a host whose socket paths are longer than a socket's address.
fn long_base(label: &str) -> Host {
    Host::with_base(label, |scratch| scratch.join("b".repeat(120)))
}

fn root(host: &Host, vm: &Vm) -> PathBuf {
    host.jailer()
        .plan(&JailSpec::new(vm.vm_id(), host.binaries.firecracker()))
        .unwrap()
        .layout()
        .root()
}

fn assert_echoes(mut stream: &UnixStream) {
    stream.set_read_timeout(Some(MINUTE)).unwrap();
    stream.write_all(b"over and out").unwrap();
    let mut back = [0; 12];
    stream.read_exact(&mut back).unwrap();
    assert_eq!(&back, b"over and out");
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn vsock_works_in_both_directions() {
    let mut host = long_base("vsock");
    if *host.binaries.kind() != BinaryKind::StandIn {
        return testkit::skip("vsock_works_in_both_directions", "the guest has no vsock driver");
    }
    for mode in MODES {
        let spec = with_vsock(host.idle("vm")).pid_namespace(mode);
        let vm = host.jailer().launch(&spec).unwrap();
        let stream = vm.vsock_connect(ECHO).unwrap();
        assert_eq!((stream.read_timeout().unwrap(), stream.write_timeout().unwrap()), (None, None));
        assert_echoes(&stream);

        let listener = vm.vsock_listen(1234).unwrap();
        assert_eq!(listener.port(), 1234);
        let socket = root(&host, &vm).join("v.sock_1234");
        let status = fs::metadata(&socket).unwrap();
        assert_eq!((status.uid(), status.gid(), status.mode() & 0o777), (UID, GID, 0o600));
        assert!(listener.accept_timeout(Duration::ZERO).unwrap().is_none());
        let mut call = vm.vsock_connect(CALL_BACK).unwrap();
        call.write_all(b"1234\n").unwrap();
        assert_echoes(&listener.accept().unwrap());
        assert_eq!(vm.vsock_listen(1234).unwrap_err().kind(), ErrorKind::Busy);
        drop(listener);
        assert!(!socket.exists(), "the socket goes with its listener");

        let error = vm.vsock_connect(54).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vsock, "{error}");
        vm.kill().unwrap();
        drop(vm);
        host.jailer().remove("vm").unwrap();
    }
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_listener_ends_with_its_vm() {
    let mut host = Host::new("vsock-end");
    let vm = host.jailer().launch(&with_vsock(host.idle("vm"))).unwrap();
    let (first, second) = (vm.vsock_listen(1).unwrap(), vm.vsock_listen(2).unwrap());
    // Left by a launcher that was killed, and taken over by the next.
    std::mem::forget(first);
    drop(vm);
    let vm = host.jailer().adopt("vm").unwrap();
    drop(second);
    let waiting = vm.vsock_listen(2).unwrap();
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| waiting.accept().unwrap_err());
        vm.kill().unwrap();
        assert_eq!(waits.join().unwrap().kind(), ErrorKind::Identity);
    });
    assert_eq!(vm.vsock_listen(3).unwrap_err().kind(), ErrorKind::Identity);
    drop(vm);
    host.jailer().remove("vm").unwrap();
    drop(waiting);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_machine_without_vsock_is_named() {
    let mut host = Host::new("vsock-none");
    let vm = host.jailer().launch(&host.idle("vm")).unwrap();
    for error in [vm.vsock_connect(ECHO).unwrap_err(), vm.vsock_listen(1).unwrap_err()] {
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(error.hint().unwrap().contains("`vsock`"), "{error}");
    }
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_72_a_replaced_vsock_gains_nothing() {
    let mut host = Host::new("vsock-swap");
    let vm = host.jailer().launch(&with_vsock(host.idle("vm"))).unwrap();
    let socket = root(&host, &vm).join("v.sock");
    fs::rename(&socket, socket.with_extension("aside")).unwrap();
    let refused = |what: &str| {
        let begun = Instant::now();
        let error = vm.vsock_connect_within(ECHO, SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Identity, "{what}: {error}");
        assert!(begun.elapsed() < MINUTE);
        fs::remove_file(&socket).unwrap();
    };
    let elsewhere = host.scratch.join("elsewhere");
    let _elsewhere = UnixListener::bind(&elsewhere).unwrap();
    symlink(&elsewhere, &socket).unwrap();
    refused("a link");
    fs::write(&socket, "").unwrap();
    refused("a file");
    // Of the right uid, and listened to by another process: this one.
    let listener = UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(UID), Some(GID)).unwrap();
    refused("another process's socket");
    drop(listener);
    assert_eq!(vm.vsock_connect_within(ECHO, SHORT).unwrap_err().kind(), ErrorKind::NotFound);
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_73_planted_names_gain_nothing() {
    let mut host = Host::new("vsock-plant");
    let vm = host.jailer().launch(&with_vsock(host.idle("vm"))).unwrap();
    let socket = root(&host, &vm).join("v.sock_9");
    let target = host.scratch.file("target", b"secret");
    fs::set_permissions(&target, fs::Permissions::from_mode(0o640)).unwrap();
    let before = fs::metadata(&target).unwrap();
    for plant in ["link", "hard link", "file", "socket"] {
        let planted = match plant {
            "link" => symlink(&target, &socket),
            "hard link" => fs::hard_link(&target, &socket),
            "file" => fs::write(&socket, "x"),
            _ => UnixListener::bind(&socket).map(std::mem::forget),
        };
        planted.unwrap();
        if plant == "socket" {
            // Listened to by this process: a live listener is not pushed aside.
            assert_eq!(vm.vsock_listen(9).unwrap_err().kind(), ErrorKind::Busy);
            fs::remove_file(&socket).unwrap();
            continue;
        }
        let listener = vm.vsock_listen(9).unwrap();
        let after = fs::metadata(&target).unwrap();
        assert_eq!(
            (after.uid(), after.gid(), after.mode()),
            (before.uid(), before.gid(), before.mode())
        );
        assert_eq!(fs::read(&target).unwrap(), b"secret");
        // What takes the socket's place later is the VM's, and stays.
        fs::remove_file(&socket).unwrap();
        fs::write(&socket, "the VM's").unwrap();
        drop(listener);
        assert_eq!(fs::read(&socket).unwrap(), b"the VM's", "{plant}");
        fs::remove_file(&socket).unwrap();
    }
    fs::create_dir(&socket).unwrap();
    assert_eq!(vm.vsock_listen(9).unwrap_err().kind(), ErrorKind::Filesystem);
    let aside = fs::read_dir(socket.parent().unwrap().parent().unwrap()).unwrap();
    let aside =
        aside.flatten().filter(|entry| entry.file_name().to_string_lossy().starts_with("vsock"));
    assert_eq!(aside.count(), 0, "a listener that failed leaves nothing");
    vm.kill().unwrap();
    drop(vm);
    host.assert_clean();
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_74_only_the_vmm_is_accepted() {
    let mut host = Host::new("vsock-peer");
    let vm = host.jailer().launch(&with_vsock(host.idle("vm"))).unwrap();
    let listener = vm.vsock_listen(9).unwrap();
    let socket = root(&host, &vm).join("v.sock_9");
    // More than once, so that one that is refused does not end the wait.
    let _strangers: Vec<_> = (0..20).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    let begun = Instant::now();
    assert!(listener.accept_timeout(SHORT).unwrap().is_none());
    assert!(begun.elapsed() < MINUTE);
    vm.kill().unwrap();
    drop((vm, listener));
    host.assert_clean();
}

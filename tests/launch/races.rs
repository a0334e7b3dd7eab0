//! Row 24: the jail's user swaps the API's socket while the launcher connects to it.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt as _, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};

use microvm_runtime::{Console, ErrorKind};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use rustix::net::sockopt::socket_peercred;
use testkit::{KillOnDrop, Round, race};

use crate::host::{Host, UID};

const NAME: &str = "races::row_24_race_for_the_api_socket";
const ATTACKER: &str = "attacker";

/// Answers every request as the API of a VM called `name` would; how many connections there were.
fn impersonate(listener: &UnixListener, name: &str, connections: &AtomicU32) {
    let body = format!(
        r#"{{"id":"{name}","state":"Running","vmm_version":"1.16.1","app_name":"Firecracker"}}"#
    );
    for mut stream in listener.incoming().flatten() {
        connections.fetch_add(1, Ordering::SeqCst);
        let mut request = [0; 1024];
        // One that only connected sends nothing.
        if stream.read(&mut request).is_ok_and(|length| length > 0) {
            let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: ";
            let _ = write!(stream, "{head}{}\r\n\r\n{body}", body.len());
        }
    }
}

/// The attack of the jail's user in the jail's root, in an endless loop.
fn attack(host_socket: &str) {
    assert_eq!(nix::unistd::geteuid().as_raw(), UID);
    symlink(host_socket, "link").unwrap();
    let listener = UnixListener::bind("impostor").unwrap();
    std::thread::spawn(move || impersonate(&listener, "impostor", &AtomicU32::new(0)));
    println!("ready");
    loop {
        for other in ["link", "impostor"] {
            for _ in 0..2 {
                let exchange = RenameFlags::RENAME_EXCHANGE;
                renameat2(AT_FDCWD, "api.sock", AT_FDCWD, other, exchange).unwrap();
            }
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_24_race_for_the_api_socket() {
    if testkit::role().as_deref() == Some(ATTACKER) {
        return attack(&std::env::var("HOST_SOCKET").unwrap());
    }
    let mut host = Host::new("apirace");
    let host_socket = host.scratch.join("host.sock");
    let listener = UnixListener::bind(&host_socket).unwrap();
    static REACHED: AtomicU32 = AtomicU32::new(0);
    std::thread::spawn(move || impersonate(&listener, "host", &REACHED));

    // It says a line for every request, and nobody is to keep them.
    let spec = host.idle("vm").console(Console::null());
    let root = host.jailer().plan(&spec).unwrap().layout().root();
    let vm = host.jailer().launch(&spec).unwrap();
    let mut attacker = testkit::reenter(NAME, ATTACKER);
    // Inside already, as a VMM is: from outside nobody but root comes in.
    let inside = fs::File::open(&root).unwrap();
    attacker
        .current_dir(format!("/proc/self/fd/{}", inside.as_raw_fd()))
        .env("HOST_SOCKET", &host_socket)
        .stdout(Stdio::piped());
    let mut attacker = KillOnDrop::spawn(&mut testkit::as_user(attacker, UID));
    let said = BufReader::new(attacker.stdout.take().unwrap());
    assert!(said.lines().any(|line| line.unwrap().ends_with("ready")), "the attacker ended");

    let socket = root.join("api.sock");
    let mut reached = 0;
    let mut host_was_reached = || {
        let before = std::mem::replace(&mut reached, REACHED.load(Ordering::SeqCst));
        reached != before
    };
    race(
        "row 24",
        1,
        attacker,
        || {
            let outcome = match vm.api().and_then(|api| api.instance_info()) {
                Ok(info) if info.id == "vm" => Round::Won("the VM answered"),
                Ok(_) => Round::Lost,
                Err(error) if error.kind() == ErrorKind::Identity => Round::Won("refused"),
                Err(error) => panic!("no answer to this attack: {error}: {error:?}"),
            };
            if host_was_reached() { Round::Lost } else { outcome }
        },
        || {
            // Looks what is there, and then goes there by name.
            if !fs::symlink_metadata(&socket).is_ok_and(|meta| meta.file_type().is_socket()) {
                return Round::Won("refused");
            }
            let Ok(stream) = UnixStream::connect(&socket) else { return Round::Won("no one") };
            let peer = socket_peercred(&stream).unwrap().pid.as_raw_nonzero().get();
            if peer.cast_unsigned() == vm.pid() { Round::Won("the VM") } else { Round::Lost }
        },
    );
    assert!(!vm.kill().unwrap().success());
    drop(vm);
    host.assert_clean();
}

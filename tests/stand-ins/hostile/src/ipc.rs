//! Things of the kernel that outlive a process, or that are counted by user.

use std::ffi::CString;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use crate::sys;

/// 256 MiB of System V shared memory, semaphores and a message queue, several times; detached from any process that lives.
pub(crate) fn system_v() {
    for _ in 0..4 {
        let _ = sys::system_v(64 << 20);
        let _ = sys::fork(|| {
            let _ = sys::system_v(1 << 20);
            sys::exit_now(0)
        });
    }
}

/// Message queues of POSIX, with a message each.
pub(crate) fn message_queues() {
    for number in 0..8 {
        if let Ok(name) = CString::new(format!("/left-{number}")) {
            let _ = sys::message_queue(&name);
        }
    }
}

/// 64 MiB in files that have no name.
pub(crate) fn memory_files() {
    for _ in 0..4 {
        let _ = sys::memory_file(16 << 20);
    }
}

/// Keys in the keyrings of the thread, process, session and user, in the user's session, and in the user's persistent keyring,
/// which outlives each process of the user by days.
pub(crate) fn keys() {
    for keyring in [-1, -2, -3, -4, -5] {
        for number in 0..20 {
            if let Ok(name) = CString::new(format!("left:{number}")) {
                let _ = sys::add_key(&name, keyring);
            }
        }
    }
    if let (Ok(keyring), Ok(name)) = (sys::persistent_keyring(), CString::new("left")) {
        let _ = sys::add_key(&name, keyring);
    }
}

/// Abstract sockets, and connections to all that may listen on the loopback.
pub(crate) fn sockets() {
    for number in 0..50 {
        let address = SocketAddr::from_abstract_name(format!("microvm-{number}"));
        let _ = address.and_then(|address| UnixListener::bind_addr(&address)).map(std::mem::forget);
    }
    let _ =
        SocketAddr::from_abstract_name("").and_then(|address| UnixStream::connect_addr(&address));
    let _ = TcpListener::bind("127.0.0.1:0").map(std::mem::forget);
    let _ = TcpStream::connect("127.0.0.1:22").map(std::mem::forget);
}

/// Every inotify instance that the user may have.
pub(crate) fn watches() {
    sys::watch_all();
}

/// Every descriptor that the process may have but a few, each child too.
pub(crate) fn descriptors() {
    for _ in 0..8 {
        let _ = sys::fork(|| fill(0));
    }
    fill(16);
}

fn fill(leave: usize) {
    let mut held = Vec::new();
    while let Ok(file) = std::fs::File::open("/") {
        held.push(file);
    }
    held.truncate(held.len().saturating_sub(leave));
    std::mem::forget(held);
}

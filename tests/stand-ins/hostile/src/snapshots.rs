//! Snapshots that are not what they seem: the answer to `PUT /snapshot/create` is a success, and the memory file a trap.

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{FileExt as _, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;

use crate::sys;

/// The memory of this VM, in MiB.
const MEMORY_MIB: u64 = 1;

const MEMORY: &str = "/taken.memory";

/// The kind of the memory file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Trap {
    /// A link to a file of the host.
    Link,
    Fifo,
    /// A file of a terabyte, without a block.
    Larger,
    /// A file with a second name.
    TwoNames,
    /// A file as expected, written again once the name is gone.
    KeptOpen,
}

/// Answers as Firecracker with a running guest does.
pub(crate) fn answer(mut stream: &UnixStream, request: &[u8], trap: Trap) {
    let body = if request.starts_with(b"GET /machine-config") {
        format!(r#"{{"vcpu_count":1,"mem_size_mib":{MEMORY_MIB}}}"#)
    } else if request.starts_with(b"GET") {
        r#"{"id":"vm","state":"Running","vmm_version":"1.16.1","app_name":"Firecracker"}"#
            .to_owned()
    } else {
        if request.starts_with(b"PUT /snapshot/create") {
            create(trap);
        }
        let _ = stream.write_all(b"HTTP/1.1 204 \r\n\r\n");
        return;
    };
    let length = body.len();
    let head = "HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: ";
    let _ = stream.write_all(format!("{head}{length}\r\n\r\n{body}").as_bytes());
}

fn create(trap: Trap) {
    let _ = fs::write("/taken.vmstate", "state");
    let file = || {
        let file = File::create(MEMORY);
        let _ = file.as_ref().map(|file| file.set_len(MEMORY_MIB << 20));
        file
    };
    match trap {
        Trap::Link => drop(symlink("/etc/passwd", MEMORY)),
        Trap::Fifo => sys::make_fifo(c"/taken.memory"),
        Trap::Larger => drop(File::create(MEMORY).and_then(|file| file.set_len(1 << 40))),
        Trap::TwoNames => {
            let _ = file();
            let _ = fs::hard_link(MEMORY, "/second");
        }
        Trap::KeptOpen => {
            let Ok(kept) = file() else { return };
            thread::spawn(move || {
                while Path::new(MEMORY).exists() {
                    thread::yield_now();
                }
                let _ = kept.write_all_at(b"poison", 0);
                let _ = fs::write("/poisoned", "");
            });
        }
    }
}

//! Attacks by the guest's vsock: on the launcher that connects, and on its listeners.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use crate::sys;

/// The socket that a launcher connects to.
const SOCKET: &str = "/v.sock";

/// The answer to `CONNECT <port>`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Silence,
    Drip,
    Endless,
    Text(&'static str),
    Close,
    Backlog,
    ByChild,
    Descriptors,
}

/// Serves in a thread, or in a child, while the API answers.
pub(crate) fn serve(answer: Answer) {
    let Ok(listener) = UnixListener::bind(SOCKET) else { return };
    match answer {
        Answer::ByChild => {
            drop(listener);
            let _ = sys::fork(|| {
                let _ = fs::remove_file(SOCKET);
                if let Ok(listener) = UnixListener::bind(SOCKET) {
                    accept(&listener, Answer::Text("OK 1073741824\n"));
                }
            });
        }
        Answer::Backlog => {
            sys::set_backlog(&listener, 0);
            let _ = UnixStream::connect(SOCKET).map(std::mem::forget);
            std::mem::forget(listener);
        }
        _ => drop(thread::spawn(move || accept(&listener, answer))),
    }
}

fn accept(listener: &UnixListener, answer: Answer) {
    for stream in listener.incoming().flatten() {
        thread::spawn(move || attack(stream, answer));
    }
}

fn attack(mut stream: UnixStream, answer: Answer) {
    let _ = stream.read(&mut [0; 64]);
    match answer {
        Answer::Drip => {
            for byte in b"OK 1073741824".iter().chain(std::iter::repeat(&b'0')) {
                if stream.write_all(&[*byte]).is_err() {
                    return;
                }
                thread::sleep(Duration::from_millis(200));
            }
        }
        Answer::Endless => {
            let block = b"OK \x1b[2J\xff".repeat(8 << 10);
            for _ in 0..(1 << 30) / block.len() {
                if stream.write_all(&block).is_err() {
                    return;
                }
            }
        }
        Answer::Text(text) => drop(stream.write_all(text.as_bytes())),
        Answer::Descriptors => drop(sys::send_descriptors(&stream, b"OK 1073741824\n", 0)),
        Answer::Close => return,
        _ => {}
    }
    // Not closed: the launcher is to wait.
    std::mem::forget(stream);
}

/// Calls each listener of the launcher as often as it can, and then takes the listener's place by a link.
pub(crate) fn call_listeners() {
    drop(thread::spawn(|| {
        for _ in 0..2_000 {
            let entries = fs::read_dir("/").into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()) {
                if !path.to_string_lossy().starts_with("/v.sock_") {
                    continue;
                }
                for _ in 0..64 {
                    let _ = UnixStream::connect(&path).map(std::mem::forget);
                }
                let _ = fs::rename(&path, "/taken");
                let _ = symlink("/etc/passwd", &path);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }));
}

/// Takes the names of the launcher's listeners before the launcher does.
pub(crate) fn take_names() {
    for (number, port) in (0..2_000).enumerate() {
        let name = format!("{SOCKET}_{port}");
        let _ = match number % 3 {
            0 => symlink("/etc/passwd", name),
            1 => fs::create_dir(name),
            _ => UnixListener::bind(name).map(std::mem::forget),
        };
    }
}

//! An API that answers like Firecracker, or attacks clients.

use std::io::{Read as _, Write as _};
use std::os::unix::fs::symlink;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::snapshots::{self, Trap};
use crate::{Args, sys};

/// The way requests are answered.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Answer {
    Politely,
    Absent,
    LinkElsewhere,
    ByChild,
    OtherKind(i32),
    Backlog,
    Silence,
    Drip,
    EndlessHead,
    EndlessBody,
    EndlessContinue,
    HugeError,
    Length(i64),
    DeepJson,
    ManyHeaders,
    Close,
    EarlyRefusal,
    Descriptors,
    Garbage,
    Snapshots(Trap),
}

/// Done once the first request was answered.
static AFTER_FIRST: OnceLock<fn()> = OnceLock::new();
static ANSWERED: AtomicBool = AtomicBool::new(false);

/// Has `then` done by the main thread as soon as one request was answered.
pub(crate) fn after_first_answer(then: fn()) {
    let _ = AFTER_FIRST.set(then);
}

/// Serves for ever.
pub(crate) fn serve(args: &Args, answer: Answer, at_once: bool) -> ! {
    let socket = args.socket.as_str();
    match answer {
        Answer::Absent => sys::pause_for_ever(),
        Answer::LinkElsewhere => {
            let _ = UnixListener::bind("/elsewhere.sock").map(std::mem::forget);
            let _ = symlink("/elsewhere.sock", socket);
            sys::pause_for_ever()
        }
        Answer::ByChild => {
            let _ = sys::fork(|| serve(args, Answer::Politely, false));
            sys::pause_for_ever()
        }
        Answer::OtherKind(kind) => {
            let _ = sys::bind_other_kind(socket.as_bytes(), kind);
            sys::pause_for_ever()
        }
        _ => {}
    }
    let Ok(listener) = UnixListener::bind(socket) else { sys::pause_for_ever() };
    let id = args.id.clone();
    let waiting = thread::current();
    ANSWERED.store(at_once, Ordering::SeqCst);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            if ANSWERED.load(Ordering::SeqCst) {
                if matches!(answer, Answer::Backlog) {
                    // Nobody is accepted any more, and the next client has no place in the queue.
                    sys::set_backlog(&listener, 0);
                    let _ = UnixStream::connect_addr(
                        &listener.local_addr().unwrap_or_else(|_| sys::exit_now(98)),
                    )
                    .map(std::mem::forget);
                    sys::pause_for_ever();
                }
                thread::spawn(move || attack(stream, answer));
                if matches!(answer, Answer::Politely) {
                    continue;
                }
            } else if politely(&stream, &id) {
                ANSWERED.store(true, Ordering::SeqCst);
                waiting.unpark();
            }
        }
    });
    while AFTER_FIRST.get().is_none() || !ANSWERED.load(Ordering::SeqCst) {
        thread::park();
    }
    if let Some(then) = AFTER_FIRST.get() {
        then();
    }
    sys::pause_for_ever()
}

/// Reads the head of a request, with the part of the body that arrives together. `None` if the client sends nothing.
fn request(mut stream: &UnixStream) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 4096];
    match stream.read(&mut bytes) {
        Ok(0) | Err(_) => None,
        Ok(length) => {
            bytes.truncate(length);
            Some(bytes)
        }
    }
}

/// Answers one request as Firecracker does; whether there was one.
fn politely(mut stream: &UnixStream, id: &str) -> bool {
    let Some(request) = request(stream) else { return false };
    let text = if request.starts_with(b"GET") {
        let body = format!(
            r#"{{"id":"{id}","state":"Not started","vmm_version":"1.16.1","app_name":"Firecracker"}}"#
        );
        format!(
            "HTTP/1.1 200 \r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
    } else {
        "HTTP/1.1 204 \r\n\r\n".to_owned()
    };
    stream.write_all(text.as_bytes()).is_ok()
}

/// Says this over and over until the client is gone, 1 GiB at most.
fn repeat(mut stream: &UnixStream, piece: &[u8]) {
    let block = piece.repeat((64 << 10) / piece.len());
    for _ in 0..(1 << 30) / block.len() {
        if stream.write_all(&block).is_err() {
            return;
        }
    }
}

fn attack(stream: UnixStream, answer: Answer) {
    if let Answer::Snapshots(trap) = answer {
        if let Some(request) = request(&stream) {
            snapshots::answer(&stream, &request, trap);
        }
        return;
    }
    let mut out = &stream;
    let mut say = |text: &str| drop(out.write_all(text.as_bytes()));
    if !matches!(answer, Answer::Close | Answer::EarlyRefusal | Answer::Politely)
        && request(&stream).is_none()
    {
        return;
    }
    match answer {
        Answer::Drip => {
            for byte in "HTTP/1.1 200 \r\nContent-Length: 100000\r\n\r\n"
                .chars()
                .chain(std::iter::repeat(' '))
            {
                say(&byte.to_string());
                thread::sleep(Duration::from_millis(200));
            }
        }
        Answer::EndlessHead => {
            say("HTTP/1.1 200 \r\n");
            repeat(&stream, b"X-More: more\r\n");
        }
        Answer::EndlessContinue => repeat(&stream, b"HTTP/1.1 100 Continue\r\n\r\n"),
        Answer::EndlessBody => {
            say("HTTP/1.1 200 \r\nContent-Length: 9999999999\r\n\r\n");
            repeat(&stream, b"[\x1b[2J");
        }
        Answer::HugeError => {
            say("HTTP/1.1 400 \r\nContent-Length: 16000000\r\n\r\n");
            let piece = b"\x1b]0;owned\x07\r\n\xff\x00";
            repeat(&stream, piece);
        }
        Answer::Length(length) => {
            say(&format!("HTTP/1.1 200 \r\nContent-Length: {length}\r\n\r\n{{}}"))
        }
        Answer::DeepJson => {
            let body = "[".repeat(200_000) + &"{\"a\":".repeat(200_000);
            say(&format!("HTTP/1.1 200 \r\nContent-Length: {}\r\n\r\n{body}", body.len()));
        }
        Answer::ManyHeaders => {
            say("HTTP/1.1 200 \r\n");
            for number in 0..10_000 {
                say(&format!("X-{number}: \x1b[31m\r\n"));
            }
            say("Content-Length: 2\r\n\r\n{}");
        }
        // Before it has read anything, and without reading the rest.
        Answer::EarlyRefusal => {
            say("HTTP/1.1 400 \r\nContent-Length: 21\r\n\r\n{\"fault_message\":\"x\"}");
        }
        Answer::Descriptors => {
            let body = b"HTTP/1.1 200 \r\nContent-Length: 2\r\n\r\n{}";
            let _ = sys::send_descriptors(&stream, body, 0);
        }
        Answer::Garbage => say("\x1b[2J\0\u{202e}HTTP\r\n\r\n\r\n"),
        Answer::Politely => while politely(&stream, "politely") {},
        Answer::Silence => {}
        _ => return,
    }
    // Not closed: the client is to wait.
    std::mem::forget(stream);
}

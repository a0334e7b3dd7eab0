//! Attacks by output, and by the descriptors of stdout and stderr.

use std::fs::OpenOptions;
use std::io::{Write, stderr, stdout};
use std::os::unix::fs::OpenOptionsExt as _;

use crate::{Args, sys};

/// Every stream there is: stdout, stderr, and the log.
fn streams(args: &Args) -> Vec<Box<dyn Write + Send>> {
    let mut all: Vec<Box<dyn Write + Send>> = vec![Box::new(stdout()), Box::new(stderr())];
    if let Some(log) = &args.log {
        let mut open = OpenOptions::new();
        let file = open.write(true).read(true).custom_flags(libc::O_NONBLOCK).open(log);
        all.extend(file.map(|file| Box::new(file) as Box<dyn Write + Send>));
    }
    all
}

/// Writes 8 MiB to each stream, in lines of 1 MiB. Each stream has a separate process, because an unread stream may
/// block.
pub(crate) fn flood(args: &Args) {
    let line = vec![b'x'; 1 << 20];
    for mut stream in streams(args) {
        let _ = sys::fork(|| {
            for _ in 0..8 {
                let _ = stream.write_all(&line);
            }
        });
    }
}

/// Escapes, NULs and bytes that are no text, on each.
pub(crate) fn escapes(args: &Args) {
    for mut stream in streams(args) {
        let text = b"\x1b[2J\x1b]0;owned\x07\0\xff\xfe\r\n\xe2\x80\xae\n".repeat(100);
        let _ = sys::fork(|| drop(stream.write_all(&text)));
    }
}

/// Reads stdout and stderr from the start, and writes there. The name of a file reports the number of bytes read.
pub(crate) fn read_back(args: &Args) {
    for fd in 0..3 {
        if sys::read_back(fd) > 0 {
            let _ = std::fs::write("/stolen", fd.to_string());
        }
    }
    escapes(args);
}

/// `F_SETSIG` of `linux/fcntl.h`.
const F_SETSIG: i32 = 10;

/// Changes the flags of the open file descriptions that the launcher passed.
pub(crate) fn change_flags() {
    for fd in 0..3 {
        sys::control(fd, libc::F_SETOWN, 1);
        sys::control(fd, F_SETSIG, libc::SIGKILL);
        sys::control(fd, libc::F_SETFL, libc::O_ASYNC | libc::O_APPEND);
        sys::control(fd, libc::F_SETPIPE_SZ, 4096);
        sys::control(fd, libc::F_SETLEASE, libc::F_WRLCK);
    }
    println!("with other flags");
}

/// Closes stdout and stderr.
pub(crate) fn close() {
    for fd in 0..3 {
        sys::close(fd);
    }
}

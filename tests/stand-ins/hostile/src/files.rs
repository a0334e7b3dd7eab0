//! Attacks by files.

use std::ffi::{CString, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::thread;

use crate::{Args, sys};

/// The replacement of a file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    Link,
    Fifo,
    Directory,
    Socket,
    Sparse,
}

/// The files and directories of the jail.
fn all_files() -> Vec<PathBuf> {
    let mut found = vec![PathBuf::from("/")];
    let mut next = 0;
    while let Some(path) = found.get(next) {
        next += 1;
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let paths: Vec<_> = entries.map(|entry| entry.path()).take(1_000).collect();
        found.extend(paths);
    }
    found
}

/// Locks all that can be opened, in two processes; with `lease` a lease where there can be one, so that whoever opens
/// the file waits.
pub(crate) fn lock_all(lease: bool) {
    // The kernel's request to give a lease back.
    sys::ignore(libc::SIGIO);
    let lock = || {
        for path in all_files() {
            let mut how = OpenOptions::new();
            how.read(true).custom_flags(libc::O_NONBLOCK);
            for write in [true, false] {
                if let Ok(file) = how.clone().write(write).open(&path) {
                    sys::lock(&file, lease);
                    std::mem::forget(file);
                }
            }
        }
    };
    lock();
    let _ = sys::fork(lock);
}

/// Replaces all files with known names in the jail: log, metrics, pid file, vsock, the drives.
pub(crate) fn replace_all(args: &Args, kind: Kind) {
    let mut names: Vec<String> =
        [&args.log, &args.metrics].into_iter().flatten().cloned().collect();
    let entries = fs::read_dir("/").into_iter().flatten().flatten();
    names.extend(entries.map(|entry| entry.path().to_string_lossy().into_owned()));
    names.extend(["/v.sock".to_owned(), "/firecracker.pid".to_owned()]);
    // The exec copy is what the launcher knows the VMM by until it is ready.
    let kept = |name: &str| ["/dev", "/run"].contains(&name) || name.starts_with("/firecracker-");
    for name in names.iter().filter(|name| !kept(name)) {
        let aside = format!("{name}.aside");
        let _ = fs::rename(name, &aside);
        put(name, kind);
    }
    // The API's socket after it was bound.
    let socket = args.socket.clone();
    SOCKET.get_or_init(|| (socket, kind));
    crate::api::after_first_answer(|| {
        if let Some((socket, kind)) = SOCKET.get() {
            let _ = fs::rename(socket, format!("{socket}.aside"));
            put(socket, *kind);
        }
    });
}

static SOCKET: std::sync::OnceLock<(String, Kind)> = std::sync::OnceLock::new();

fn put(name: &str, kind: Kind) {
    match kind {
        Kind::Link => drop(symlink("/etc/passwd", name)),
        Kind::Fifo => sys::make_fifo(&CString::new(name).unwrap_or_default()),
        Kind::Directory => drop(fs::create_dir(name)),
        Kind::Socket => drop(UnixListener::bind(name).map(std::mem::forget)),
        Kind::Sparse => drop(File::create(name).and_then(|file| file.set_len(1 << 40))),
    }
}

/// Sets mode 0 on all owned files, and on the jail's root last.
pub(crate) fn take_permissions() {
    for path in all_files().iter().rev().filter(|path| path.as_path() != Path::new("/")) {
        let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o0));
    }
    // The API's socket is still to come.
    let _ = fs::set_permissions("/", fs::Permissions::from_mode(0o6300));
}

/// Unlinks the exec copy.
pub(crate) fn unlink_exec_copy() {
    crate::api::after_first_answer(|| {
        if let Some(own) = std::env::args().next() {
            let _ = fs::rename(&own, "/moved");
            let _ = symlink("/moved", own);
        }
    });
}

/// A directory in a directory, so many levels.
pub(crate) fn deep_tree(levels: usize) {
    for _ in 0..levels {
        if fs::create_dir("d").and_then(|()| std::env::set_current_dir("d")).is_err() {
            break;
        }
    }
    let _ = std::env::set_current_dir("/");
}

/// A directory with so many entries.
pub(crate) fn wide_tree(entries: usize) {
    let _ = fs::create_dir("/wide");
    for number in 0..entries {
        let _ = File::create(format!("/wide/{number}"));
    }
}

/// Names of all bytes and lengths, hard links to all that can be linked, and the names that a remover might use itself.
pub(crate) fn odd_names() {
    for byte in 1..=255_u8 {
        if byte != b'/' {
            let _ = File::create(PathBuf::from(OsString::from_vec(vec![b'/', byte, b'\n'])));
            let _ = fs::create_dir(PathBuf::from(OsString::from_vec(vec![b'/', byte])));
        }
    }
    for length in 250..=255 {
        let _ = fs::create_dir(format!("/{}", "n".repeat(length)));
    }
    for path in all_files() {
        let mut name = path.into_os_string();
        let source = PathBuf::from(&name);
        name.push(".link");
        let _ = fs::hard_link(source, PathBuf::from(name));
    }
    for name in [".removing", ".staging", ".jail-fs-0", "old_root", "root", "..."] {
        let _ = fs::create_dir_all(format!("/{name}/{name}"));
    }
}

/// Four processes that make files for ever, 50 000 each at most.
pub(crate) fn grow() {
    for worker in 0..4 {
        let _ = sys::fork(|| {
            for number in 0..50_000 {
                let dir = format!("/grow-{worker}-{}", number / 100);
                let _ = fs::create_dir(&dir);
                let _ = File::create(format!("{dir}/{number}"));
                thread::yield_now();
            }
        });
    }
}

/// Fills the filesystem as soon as the VM is ready: the test gave it a small one.
pub(crate) fn fill_disk() {
    crate::api::after_first_answer(fill);
}

fn fill() {
    let Ok(mut file) = File::create("/full") else { return };
    let block = vec![1; 1 << 20];
    // 256 MiB at most, should the filesystem be the host's.
    for _ in 0..256 {
        if file.write_all(&block).is_err() {
            break;
        }
    }
    let mut number = 0;
    while number < 2_000 && fs::write(format!("/small-{number}"), [1; 4096]).is_ok() {
        number += 1;
    }
    std::mem::forget(file);
}

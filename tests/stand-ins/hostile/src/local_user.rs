//! A local user without privileges that attacks root's launcher: makes calls fail or wait, wastes memory, provokes
//! kills.
//!
//! `hostile --local-user <base> <drive> <jailer> <argument>…`: the arguments are those of the jailer of the VM under
//! attack.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread::yield_now;

use crate::{processes, sys};

/// Descriptors that an attacker keeps open.
const HELD: usize = 500;

/// Attacks until a kill.
pub(crate) fn attack(items: &[String]) -> ! {
    let (Some(base), Some(drive)) = (items.get(2), items.get(3)) else { sys::exit_now(97) };
    let own = items.first().and_then(|own| CString::new(own.as_str()).ok()).unwrap_or_default();
    let jailer: Vec<_> =
        items.iter().skip(4).filter_map(|item| CString::new(item.as_str()).ok()).collect();
    processes::name(c"\xff\xfe(\n) R 1");
    processes::crowd(200);
    for _ in 0..4 {
        let _ = sys::fork(|| drop(sys::show_huge_arguments(4 << 30)));
    }
    for _ in 0..4 {
        let hold = [c"MICROVM_HOSTILE_HOLD=1".to_owned()];
        let _ = sys::fork(|| drop(sys::exec(&own, &jailer, &hold)));
    }
    let _ = sys::fork(harass_processes);
    println!("attacking");
    let mut held = Vec::new();
    loop {
        let mut paths = below(Path::new(base));
        paths.push(PathBuf::from(drive));
        for path in paths {
            let mut how = OpenOptions::new();
            how.read(true).custom_flags(libc::O_NONBLOCK);
            for write in [false, true] {
                if let Ok(file) = how.clone().write(write).open(&path) {
                    sys::lock(&file, true);
                    held.push(file);
                }
            }
            if path.symlink_metadata().is_ok_and(|meta| meta.file_type().is_socket()) {
                let _ = UnixStream::connect(&path).map(std::mem::forget);
            }
            for name in ["planted", ".uids", "root", "jail.json", "vmm.json", "console"] {
                let _ = fs::create_dir(path.join(name));
                let _ = std::os::unix::fs::symlink("/etc", path.join(name));
            }
            let _ = fs::rename(&path, path.with_extension("moved"));
        }
        if held.len() > HELD {
            held.clear();
        }
        yield_now();
    }
}

/// All below a directory that can be seen, 1 000 at most.
fn below(dir: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = dir.ancestors().map(Path::to_owned).collect();
    found.reverse();
    let mut next = found.len() - 1;
    while let Some(path) = found.get(next)
        && found.len() < 1_000
    {
        next += 1;
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        let paths: Vec<_> = entries.map(|entry| entry.path()).collect();
        found.extend(paths);
    }
    found
}

/// Signals and traces all other processes, as far as the kernel allows.
fn harass_processes() {
    loop {
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse() else { continue };
            // Refused of others' processes; its own are spared.
            if entry.metadata().is_ok_and(|meta| meta.uid() == sys::own_uid()) {
                continue;
            }
            sys::kill(pid, libc::SIGKILL);
            sys::kill(pid, libc::SIGSTOP);
            let _ = sys::trace(pid);
            for file in ["mem", "environ", "fd", "cwd", "root", "maps"] {
                let _ = fs::File::open(entry.path().join(file));
            }
        }
        yield_now();
    }
}

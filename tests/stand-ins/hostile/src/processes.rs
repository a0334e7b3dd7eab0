//! Attacks by processes.

use std::ffi::{CStr, CString};
use std::fs;
use std::thread;

use crate::sys;

/// The first argument of a helper that this program starts itself.
pub(crate) const ROLE: &str = "--hostile-role";

/// All that `unshare -UrmpinCu` makes.
pub(crate) const ALL_NAMESPACES: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS;

/// A name for this process, and for one more that is not the VMM.
pub(crate) fn name(name: &CStr) {
    sys::set_name(name);
    let _ = sys::fork(|| sys::set_name(name));
}

/// 4 GiB of arguments and as much of an environment, for the VMM and three others.
pub(crate) fn huge_arguments() {
    for _ in 0..3 {
        let _ = sys::fork(|| drop(sys::show_huge_arguments(4 << 30)));
    }
    let _ = sys::show_huge_arguments(4 << 30);
}

/// Starts a process with the arguments in the staged file `argv`: the arguments of a jailer for another jail.
pub(crate) fn jailers_arguments() {
    let text = fs::read("/argv").unwrap_or_default();
    let words = text.split(|byte| *byte == 0).filter_map(|word| CString::new(word).ok());
    let words: Vec<_> = words.collect();
    let Some(own) = own_program() else { return };
    let _ = sys::fork(|| drop(sys::exec(&own, &words, &[c"MICROVM_HOSTILE_HOLD=1".to_owned()])));
}

fn own_program() -> Option<CString> {
    CString::new(std::env::args().next()?).ok()
}

/// Plays the role that the arguments name: waits.
pub(crate) fn play(_items: &[String]) {
    sys::pause_for_ever()
}

/// 300 processes that never stop forking.
pub(crate) fn fork_bomb() {
    let _ = sys::fork(|| {
        // Theirs alone: the VMM is to answer its API.
        sys::limit(libc::RLIMIT_NPROC, 300);
        bomb();
    });
}

fn bomb() {
    loop {
        if sys::fork(bomb).is_err() {
            // The limit: make room for another, so that pids keep changing.
            if sys::own_pid() % 3 == 0 {
                sys::exit_now(0);
            }
            thread::yield_now();
        }
    }
}

/// As many processes, which wait.
pub(crate) fn crowd(count: usize) {
    for _ in 0..count {
        if sys::fork(|| {}).is_err() {
            return;
        }
    }
}

/// Starts daemons: processes in new sessions, without a living parent.
pub(crate) fn daemons(count: usize) {
    for _ in 0..count {
        let _ = sys::fork(|| {
            sys::new_session();
            let _ = sys::fork(sys::new_session);
            sys::exit_now(0)
        });
    }
}

/// Starts daemons with other root directories: one below the jail, and one removed directory.
pub(crate) fn other_root() {
    for (path, gone) in [(c"/other", false), (c"/removed", true)] {
        let _ = sys::fork(|| {
            sys::new_session();
            let _ = sys::fork(|| {
                let name = path.to_string_lossy().into_owned();
                let _ = fs::create_dir(&name);
                let _ = sys::unshare(libc::CLONE_NEWUSER);
                if gone {
                    let inside = fs::File::open("/");
                    let _ = sys::change_root(path);
                    std::mem::forget(inside);
                } else {
                    let _ = sys::change_root(path);
                }
            });
            sys::exit_now(0)
        });
    }
}

/// Children that stopped themselves.
pub(crate) fn stopped() {
    for _ in 0..10 {
        let _ = sys::fork(|| sys::kill(sys::own_pid(), libc::SIGSTOP));
    }
}

/// Starts pairs of children that trace siblings and keep every tracee stopped.
pub(crate) fn trace_each_other() {
    for _ in 0..5 {
        if let Ok(victim) = sys::fork(|| {}) {
            let _ = sys::fork(|| drop(sys::trace(victim)));
        }
    }
}

/// A child traces the VMM, so that the VMM's end is the child's to be told. The VMM stops after its first answer.
pub(crate) fn trace_the_vmm() {
    crate::api::after_first_answer(|| {
        let _ = sys::fork(|| {
            sys::new_session();
            let _ = sys::trace(sys::parent());
        });
    });
}

/// Ignores and blocks all signals, in children too.
pub(crate) fn deaf() {
    sys::hear_no_signal();
    crowd(5);
}

/// Processes in D state, and a thread of the VMM's.
pub(crate) fn vfork() {
    for _ in 0..5 {
        let _ = sys::fork(sys::vfork_for_ever);
    }
    thread::spawn(sys::vfork_for_ever);
}

/// Children that have ended, for which nobody waits.
pub(crate) fn zombies(count: usize) {
    for _ in 0..count {
        let _ = sys::fork(|| sys::exit_now(0));
    }
}

/// Threads, each with a name that a boot thread of Firecracker has.
pub(crate) fn threads(count: usize) {
    for _ in 0..count {
        let thread = thread::Builder::new().stack_size(16 << 10).name("fc_vcpu 0".to_owned());
        let _ = thread.spawn(|| sys::pause_for_ever());
    }
}

/// The first thread ends and others live on: `/proc/<pid>` shows a zombie without root or executable.
pub(crate) fn leave_threads_behind() {
    sys::exit_thread()
}

/// Executes a program that the VMM has written.
pub(crate) fn become_another_file() {
    let Some(own) = own_program() else { return };
    let path = "/other-program";
    if fs::copy(own.to_string_lossy().as_ref(), path).is_ok() {
        let role = CString::new(ROLE).unwrap_or_default();
        let _ = sys::exec(c"/other-program", &[c"\xff\x1b[2J".to_owned(), role], &[]);
    }
}

/// Starts children in user namespaces, with all mounts that the kernel allows there.
pub(crate) fn user_namespace(flags: i32) {
    for _ in 0..3 {
        let _ = sys::fork(|| {
            if sys::unshare(flags).is_err() {
                return;
            }
            let _ = fs::create_dir("/mnt");
            let _ = sys::mount(c"none", c"/mnt", c"tmpfs", 0);
            let _ = fs::write("/mnt/file", [1; 4096]);
            let _ = sys::mount(c"/", c"/mnt", c"none", libc::MS_BIND | libc::MS_REC);
            // The first child is init of the new pid namespace.
            let _ = sys::fork(sys::new_session);
        });
    }
}

/// A user namespace in another, as deep as the kernel allows.
pub(crate) fn nested_namespaces() {
    let _ = sys::fork(|| while sys::unshare(libc::CLONE_NEWUSER).is_ok() {});
}

/// Exits before the API exists, and leaves a running child.
pub(crate) fn leave_a_child() {
    let _ = sys::fork(|| {
        sys::new_session();
        let _ = sys::fork(sys::new_session);
    });
    sys::exit_now(0)
}

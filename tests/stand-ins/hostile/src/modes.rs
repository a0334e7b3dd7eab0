//! The table of the modes.

use crate::api::{self, Answer};
use crate::snapshots::Trap;
use crate::{Args, files, ipc, processes, streams, sys, vsock};

/// The result of a launch in a mode.
#[derive(Debug, Clone, Copy)]
enum Launch {
    Starts,
    Fails,
    Either,
}

/// An attack, and the behaviour of the API during the attack.
struct Mode {
    name: &'static str,
    launch: Launch,
    attack: fn(&Args),
    api: Answer,
}

/// Returns an attack with an API that answers like Firecracker.
const fn attack(name: &'static str, attack: fn(&Args)) -> Mode {
    Mode { name, launch: Launch::Starts, attack, api: Answer::Politely }
}

/// Returns an attack that ends the VMM before the API exists.
const fn end(name: &'static str, attack: fn(&Args)) -> Mode {
    Mode { name, launch: Launch::Fails, attack, api: Answer::Politely }
}

/// Returns an attack by the API.
const fn answer(name: &'static str, api: Answer) -> Mode {
    Mode { name, launch: Launch::Starts, attack: nothing, api }
}

/// Returns a mode whose process never serves the real API, but answers as `api` describes.
const fn never(name: &'static str, api: Answer) -> Mode {
    Mode { name, launch: Launch::Fails, attack: nothing, api }
}

fn nothing(_: &Args) {}

const AT_ONCE: &str = "-at-once";

const MODES: &[Mode] = &[
    attack("none", nothing),
    // Names and arguments.
    attack("name-bytes", |_| processes::name(c"\xff\xfe")),
    attack("name-text", |_| processes::name(c"a) R 1\n\x1b]2;x)\n")),
    attack("argv-huge", |_| processes::huge_arguments()),
    attack("argv-of-a-jailer", |_| processes::jailers_arguments()),
    // Processes.
    attack("fork-bomb", |_| processes::fork_bomb()),
    attack("crowd", |_| processes::crowd(1_600)),
    attack("small-crowd", |_| processes::crowd(200)),
    attack("daemons", |_| processes::daemons(20)),
    attack("other-root", |_| processes::other_root()),
    attack("stopped-children", |_| processes::stopped()),
    attack("stopped", |_| api::after_first_answer(|| sys::kill(sys::own_pid(), libc::SIGSTOP))),
    attack("traced", |_| processes::trace_each_other()),
    attack("traced-vmm", |_| processes::trace_the_vmm()),
    attack("deaf", |_| processes::deaf()),
    attack("vfork", |_| processes::vfork()),
    attack("zombies", |_| processes::zombies(300)),
    attack("threads", |_| processes::threads(500)),
    attack("leader-exits", |_| api::after_first_answer(processes::leave_threads_behind)),
    attack("exec-other", |_| api::after_first_answer(processes::become_another_file)),
    attack("unlinked-exe", |_| files::unlink_exec_copy()),
    attack("user-namespace", |_| {
        processes::user_namespace(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)
    }),
    attack("all-namespaces", |_| processes::user_namespace(processes::ALL_NAMESPACES)),
    attack("nested-namespaces", |_| processes::nested_namespaces()),
    // Things of the kernel that outlive a process, or are counted by user.
    attack("system-v", |_| ipc::system_v()),
    attack("message-queues", |_| ipc::message_queues()),
    attack("memory-files", |_| ipc::memory_files()),
    attack("keys", |_| ipc::keys()),
    attack("sockets", |_| ipc::sockets()),
    attack("watches", |_| ipc::watches()),
    attack("descriptors", |_| ipc::descriptors()),
    // Files.
    attack("locks", |_| files::lock_all(false)),
    attack("leases", |_| files::lock_all(true)),
    attack("links", |args| files::replace_all(args, files::Kind::Link)),
    attack("fifos", |args| files::replace_all(args, files::Kind::Fifo)),
    attack("directories", |args| files::replace_all(args, files::Kind::Directory)),
    attack("other-sockets", |args| files::replace_all(args, files::Kind::Socket)),
    attack("sparse-files", |args| files::replace_all(args, files::Kind::Sparse)),
    attack("no-permissions", |_| files::take_permissions()),
    attack("tree-deep", |_| files::deep_tree(5_000)),
    attack("tree-wide", |_| files::wide_tree(5_000)),
    attack("tree-names", |_| files::odd_names()),
    attack("tree-grows", |_| files::grow()),
    attack("disk-full", |_| files::fill_disk()),
    // Streams.
    attack("flood", streams::flood),
    attack("escapes", streams::escapes),
    attack("read-back", streams::read_back),
    attack("stream-flags", |_| streams::change_flags()),
    attack("streams-closed", |_| streams::close()),
    // The vsock.
    attack("vsock-silent", |_| vsock::serve(vsock::Answer::Silence)),
    attack("vsock-drip", |_| vsock::serve(vsock::Answer::Drip)),
    attack("vsock-endless", |_| vsock::serve(vsock::Answer::Endless)),
    attack("vsock-garbage", |_| vsock::serve(vsock::Answer::Text("\x1b[2J\0\u{202e}\n"))),
    attack("vsock-wrong-port", |_| vsock::serve(vsock::Answer::Text("OK 99999999999\n"))),
    attack("vsock-closes", |_| vsock::serve(vsock::Answer::Close)),
    attack("vsock-backlog", |_| vsock::serve(vsock::Answer::Backlog)),
    attack("vsock-child", |_| vsock::serve(vsock::Answer::ByChild)),
    attack("vsock-descriptors", |_| vsock::serve(vsock::Answer::Descriptors)),
    attack("vsock-calls", |_| vsock::call_listeners()),
    attack("vsock-names", |_| vsock::take_names()),
    // Ends.
    end("exits-0", |_| sys::exit_now(0)),
    end("exits-1", |_| sys::exit_now(1)),
    end("exits-137", |_| sys::exit_now(137)),
    end("aborts", |_| std::process::abort()),
    attack("exits-0-later", |_| api::after_first_answer(|| sys::exit_now(0))),
    attack("exits-137-later", |_| api::after_first_answer(|| sys::exit_now(137))),
    attack("aborts-later", |_| api::after_first_answer(|| std::process::abort())),
    Mode {
        name: "leaves-a-child",
        launch: Launch::Either,
        attack: |_| processes::leave_a_child(),
        api: Answer::Politely,
    },
    // The API.
    never("api-absent", Answer::Absent),
    never("api-link", Answer::LinkElsewhere),
    never("api-child", Answer::ByChild),
    never("api-seqpacket", Answer::OtherKind(libc::SOCK_SEQPACKET)),
    never("api-datagram", Answer::OtherKind(libc::SOCK_DGRAM)),
    answer("api-backlog", Answer::Backlog),
    answer("api-silent", Answer::Silence),
    answer("api-drip", Answer::Drip),
    answer("api-endless-head", Answer::EndlessHead),
    answer("api-endless-body", Answer::EndlessBody),
    answer("api-endless-continue", Answer::EndlessContinue),
    answer("api-huge-error", Answer::HugeError),
    answer("api-length-too-large", Answer::Length(i64::MAX)),
    answer("api-length-too-small", Answer::Length(1)),
    answer("api-length-negative", Answer::Length(-1)),
    answer("api-deep-json", Answer::DeepJson),
    answer("api-many-headers", Answer::ManyHeaders),
    answer("api-closes", Answer::Close),
    answer("api-refuses-early", Answer::EarlyRefusal),
    answer("api-descriptors", Answer::Descriptors),
    answer("api-garbage", Answer::Garbage),
    // Snapshots.
    answer("snapshot-link", Answer::Snapshots(Trap::Link)),
    answer("snapshot-fifo", Answer::Snapshots(Trap::Fifo)),
    answer("snapshot-larger", Answer::Snapshots(Trap::Larger)),
    answer("snapshot-two-names", Answer::Snapshots(Trap::TwoNames)),
    answer("snapshot-kept-open", Answer::Snapshots(Trap::KeptOpen)),
];

/// Prints the modes, one per line.
pub(crate) fn list() {
    for mode in MODES {
        let launch = match mode.launch {
            Launch::Starts => "starts",
            Launch::Fails => "fails",
            Launch::Either => "either",
        };
        println!("{}\t{launch}", mode.name);
        if mode.name.starts_with("api-") && matches!(mode.launch, Launch::Starts) {
            println!("{}{AT_ONCE}\teither", mode.name);
        }
    }
}

/// Runs one until somebody kills this process.
pub(crate) fn run(name: &str, args: &Args) -> ! {
    let at_once = name.ends_with(AT_ONCE);
    let name = name.strip_suffix(AT_ONCE).unwrap_or(name);
    match MODES.iter().find(|mode| mode.name == name) {
        Some(mode) => {
            (mode.attack)(args);
            api::serve(args, mode.api, at_once)
        }
        None => {
            eprintln!("no mode is called {name}");
            sys::exit_now(99)
        }
    }
}

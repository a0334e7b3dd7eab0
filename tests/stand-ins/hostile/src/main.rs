//! A VMM that attacks the launcher: a static program that the jailer starts in place of Firecracker, as the jail's uid,
//! in the jail. Each run makes one attack of an attacker with full control of the VMM.
//!
//! The attack is chosen by the name of the exec file, `firecracker-<mode>`, since the jailer clears the environment.
//! `hostile --modes` lists the modes: name, a tab, and what a launch comes to (`starts`, `fails` or `either`).
//! The attack is in place before the API answers, so a launcher that sees the VM ready sees it under attack. With the
//! ending `-at-once` an API attacks its first client; otherwise it answers one request as Firecracker does.
//!
//! A run ends by a kill. Each attack is bounded, so that a launcher that fails leaves the host usable.

mod api;
mod files;
mod ipc;
mod local_user;
mod modes;
mod processes;
mod snapshots;
mod streams;
mod sys;
mod vsock;

use std::path::Path;

/// The parsed arguments of Firecracker.
pub(crate) struct Args {
    pub(crate) id: String,
    pub(crate) socket: String,
    pub(crate) log: Option<String>,
    pub(crate) metrics: Option<String>,
}

fn main() {
    let items: Vec<String> =
        std::env::args_os().map(|item| item.to_string_lossy().into_owned()).collect();
    if std::env::var_os("MICROVM_HOSTILE_HOLD").is_some() {
        // Nothing but its arguments matters.
        sys::pause_for_ever();
    }
    match items.get(1).map(String::as_str) {
        Some("--version") => return println!("Firecracker v1.16.1\n"),
        Some("--modes") => return modes::list(),
        Some("--local-user") => local_user::attack(&items),
        Some(processes::ROLE) => return processes::play(&items),
        _ => {}
    }
    let value = |flag: &str| {
        let at = items.iter().position(|item| item == flag)?;
        items.get(at + 1).cloned()
    };
    let args = Args {
        id: value("--id").unwrap_or_default(),
        socket: value("--api-sock").unwrap_or_else(|| "/api.sock".to_owned()),
        log: value("--log-path"),
        metrics: value("--metrics-path"),
    };
    let program = Path::new(items.first().map_or("", String::as_str));
    let name = program.file_name().map(|name| name.to_string_lossy()).unwrap_or_default();
    let mode = name.strip_prefix("firecracker-").unwrap_or("none");
    for file in [&args.log, &args.metrics].into_iter().flatten() {
        // As Firecracker does. The launcher may have put a pipe there.
        let _ = std::fs::OpenOptions::new().create(true).read(true).append(true).open(file);
    }
    modes::run(mode, &args)
}

//! A stand-in for Firecracker, for hosts without Firecracker or KVM.
//!
//! The stand-in accepts Firecracker's arguments, serves the part of the API that a launcher uses, opens the configured
//! files, and prints Firecracker's error texts. There is no virtual machine: "booting" a kernel of `tests/guest` prints the
//! kernel's line on the console and imitates the guest. The stand-in installs no seccomp filter.

mod api;
mod args;
mod console;
mod guest;
mod http;
mod machine;
mod sections;
mod snapshot;
mod vsock;

use std::os::unix::net::UnixListener;
use std::process::{abort, exit};
use std::sync::Mutex;

use crate::args::{Args, Command};
use crate::console::Console;
use crate::machine::Machine;

/// The reported release: the release that the stand-in was compared with.
const VERSION: &str = "1.16.1";

fn main() {
    let args = match args::parse(std::env::args().skip(1)) {
        Ok(Command::Run(args)) => *args,
        Ok(Command::Version) => return println!("Firecracker v{VERSION}\n"),
        Ok(Command::Help) => return println!("Firecracker v{VERSION}\n\n(a stand-in)\n"),
        Err(message) => {
            let console = Console::plain("anonymous-instance");
            console.log(&format!(
                "Arguments parsing error: {message} \\n\\nFor more information try --help."
            ));
            die(&console, "ParseArguments", &message, 153)
        }
    };
    let console = match Console::open(&args) {
        Ok(console) => console,
        Err(err) => die(&Console::plain(&args.id), "LogPath", &err.to_string(), 1),
    };
    console.log(&format!("Running Firecracker v{VERSION}"));
    let config = args.config_file.as_ref().map(|path| match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(err) => {
            console.log(&format!(
                "Firecracker panicked at src/firecracker/src/main.rs:388:20:\nUnable to open or read from the configuration file: {err:?}"
            ));
            abort()
        }
    });
    if args.api_sock.is_none() {
        run_without_api(&args, &console, config)
    } else {
        run_with_api(&args, &console, config)
    }
}

/// Returns a machine without a configuration, with the metadata of `--metadata`.
fn machine(args: &Args) -> Machine {
    let mut machine = Machine::new(&args.id, args.enable_pci);
    let text = args.metadata.as_ref().and_then(|path| std::fs::read_to_string(path).ok());
    if let Some(data) = text.and_then(|text| serde_json::from_str(&text).ok()) {
        machine.put_metadata(data);
    }
    machine
}

fn run_without_api(args: &Args, console: &Console, config: Option<String>) -> ! {
    let mut machine = machine(args);
    if let Err(message) = configure_and_start(&mut machine, console, config) {
        console.log(&format!("RunWithoutApiError error: {message}"));
        die(console, "RunWithoutApiError", &message, 1);
    }
    guest::sleep()
}

fn run_with_api(args: &Args, console: &Console, config: Option<String>) -> ! {
    let path = args.api_sock.as_deref().unwrap_or_default();
    let Ok(listener) = UnixListener::bind(path) else {
        let message =
            format!("Failed to open the API socket at: {path}. Check that it is not already used.");
        console.log(&format!("RunWithApiError error: {message}"));
        die(console, "RunWithApi", &message, 1)
    };
    console.log(&format!("Listening on API socket ({path:?})."));
    let machine = Mutex::new(machine(args));
    std::thread::scope(|scope| {
        // As in Firecracker, requests wait until the machine of the configuration file is there.
        let mut configured = machine.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        scope.spawn(|| api::serve(&listener, &machine, console, args.http_api_max_payload_size));
        console.log("API server started.");
        if config.is_some()
            && let Err(message) = configure_and_start(&mut configured, console, config)
        {
            console.log(&format!("RunWithApiError error: {message}"));
            die(console, "RunWithApi", &message, 1);
        }
        drop(configured);
        guest::sleep()
    })
}

fn configure_and_start(
    machine: &mut Machine,
    console: &Console,
    config: Option<String>,
) -> Result<(), String> {
    const CONFIGURE: &str = "Configuration for VMM from one single json failed";
    const START: &str = "Could not Start MicroVM from one single json";
    machine
        .configure(&config.unwrap_or_default())
        .map_err(|err| format!("Failed to build MicroVM from Json: {CONFIGURE}: {err}"))?;
    machine
        .start(console)
        .map_err(|err| format!("Failed to build MicroVM from Json: {START}: {err}"))?;
    // The sign by which a launcher sees that the build is through.
    let vcpu = std::thread::Builder::new().name("fc_vcpu 0".to_owned()).spawn(|| guest::sleep());
    vcpu.map_err(|err| format!("Failed to build MicroVM from Json: {START}: {err}"))?;
    console.log("Successfully started microvm that was configured from one single json");
    machine.let_the_guest_run(console);
    Ok(())
}

fn die(console: &Console, kind: &str, message: &str, code: i32) -> ! {
    console.log(&format!("Firecracker exiting with error. exit_code={code}"));
    eprintln!("Error: {kind}({message:?})");
    exit(code)
}

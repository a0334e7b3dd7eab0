//! The API: which request does what.

use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Mutex, PoisonError};

use serde_json::{Value, json};

use crate::console::Console;
use crate::http::{self, Request};
use crate::machine::{self, Machine, string};
use crate::sections;
use crate::snapshot;

/// The action after the answer was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    Nothing,
    RunGuest,
    Stop,
}

/// Serves every connection in a separate thread until the process exits.
pub(crate) fn serve(
    listener: &UnixListener,
    machine: &Mutex<Machine>,
    console: &Console,
    limit: usize,
) {
    std::thread::scope(|scope| {
        for stream in listener.incoming().flatten() {
            scope.spawn(move || talk(stream, machine, console, limit));
        }
    });
}

fn talk(mut stream: UnixStream, machine: &Mutex<Machine>, console: &Console, limit: usize) {
    let mut held = Vec::new();
    while let Ok(Some(request)) = http::read(&mut stream, &mut held, limit) {
        let mut machine = machine.lock().unwrap_or_else(PoisonError::into_inner);
        console.log(&format!(
            "The API server received a {} request on {:?}.",
            request.method, request.path
        ));
        let (outcome, then) = match handle(&mut machine, console, &request) {
            Ok((value, then)) => (Ok(value), then),
            Err(fault) => (Err(fault), Then::Nothing),
        };
        let gone = http::answer(&mut stream, &outcome).is_err();
        match then {
            Then::Nothing => {}
            Then::RunGuest => machine.let_the_guest_run(console),
            Then::Stop => machine::stop(console),
        }
        if gone {
            return;
        }
    }
}

fn handle(
    machine: &mut Machine,
    console: &Console,
    request: &Request,
) -> Result<(Option<Value>, Then), String> {
    const TOO_EARLY: &str = "The requested operation is not supported before starting the microVM.";
    const TOO_LATE: &str = "The requested operation is not supported after starting the microVM.";
    let body = || {
        serde_json::from_slice::<Value>(&request.body).map_err(|err| {
            format!("An error occurred when deserializing the json body of a request: {err}.")
        })
    };
    let path = request.path.trim_start_matches('/');
    let resource = sections::resource(path);
    let started = machine.is_started();
    match (request.method.as_str(), path.split('/').next().unwrap_or_default()) {
        ("GET", "") => Ok((Some(machine.info()), Then::Nothing)),
        ("GET", "version") => {
            Ok((Some(json!({ "firecracker_version": crate::VERSION })), Then::Nothing))
        }
        ("GET", "machine-config" | "balloon") => {
            let section = machine.section(path).ok_or("No balloon device found.")?;
            Ok((Some(section), Then::Nothing))
        }
        ("GET", "mmds") => Ok((Some(machine.metadata().clone()), Then::Nothing)),
        ("GET", "vm") if path == "vm/config" => Ok((Some(machine.config()), Then::Nothing)),
        ("PUT", "actions") => match (string(&body()?, "action_type")?, started) {
            ("InstanceStart", false) => {
                machine.start(console).map_err(|err| format!("Start microvm error: {err}"))?;
                Ok((None, Then::RunGuest))
            }
            ("SendCtrlAltDel", true) if machine.hears_ctrl_alt_del() => Ok((None, Then::Stop)),
            ("SendCtrlAltDel" | "FlushMetrics", true) => Ok((None, Then::Nothing)),
            ("InstanceStart", true) => Err(TOO_LATE.to_owned()),
            ("SendCtrlAltDel" | "FlushMetrics", false) => Err(TOO_EARLY.to_owned()),
            (other, _) => Err(format!(
                "An error occurred when deserializing the json body of a request: unknown variant `{other}`, expected \
                 one of `FlushMetrics`, `InstanceStart`, `SendCtrlAltDel`."
            )),
        },
        ("PUT" | "PATCH", "mmds") if path == "mmds" => {
            machine.put_metadata(body()?);
            Ok((None, Then::Nothing))
        }
        ("PUT", "snapshot") if path == "snapshot/create" && started => {
            snapshot::create(machine, &body()?)
                .map_err(|err| format!("Create snapshot error: {err}"))?;
            Ok((None, Then::Nothing))
        }
        ("PUT", "snapshot") if path == "snapshot/load" && !started => {
            snapshot::load(machine, &body()?)
                .map_err(|err| format!("Load snapshot error: {err}"))?;
            Ok((None, Then::Nothing))
        }
        ("PUT", "snapshot") if path == "snapshot/create" => Err(TOO_EARLY.to_owned()),
        ("PUT", "snapshot") if path == "snapshot/load" => Err(TOO_LATE.to_owned()),
        ("PUT", _) if resource.is_some() => {
            let resource = resource.unwrap_or_default();
            if started && !machine.plugs(resource) {
                return Err(TOO_LATE.to_owned());
            }
            machine.put(resource, body()?)?;
            Ok((None, Then::Nothing))
        }
        ("DELETE", _) if resource.is_some_and(|it| machine.plugs(it)) => {
            let resource = resource.unwrap_or_default();
            machine.remove(resource)?;
            Ok((None, Then::Nothing))
        }
        ("PATCH", "drives" | "network-interfaces" | "pmem") if started => {
            machine.patch(path, &body()?)?;
            Ok((None, Then::Nothing))
        }
        // The guests have no drivers, which these devices need.
        ("PATCH", "balloon") if started => {
            Err("Balloon update error: Balloon: Device not activated yet.".to_owned())
        }
        ("PATCH", "hotplug") if started => {
            Err("Memory hotplug update error: Failed to create memory hotplug device: \
             Device is not active"
                .to_owned())
        }
        ("PATCH", "vm") if started => {
            machine.set_state(&body()?)?;
            Ok((None, Then::Nothing))
        }
        ("PATCH", "vm") => Err(TOO_EARLY.to_owned()),
        (method, _) => Err(format!("Invalid request method and/or path: {method} {path}.")),
    }
}

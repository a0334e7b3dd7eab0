//! Snapshots: the configuration as JSON in the place of the state of a machine, and a memory file of the right size.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::path::Path;

use serde_json::{Value, json};

use crate::guest::Guest;
use crate::machine::{Machine, Saved, string};

/// The first bytes of a memory file.
const MARK: &[u8] = b"stand-in memory";

/// `PUT /snapshot/create`. A memory file that exists with the right size is written over, as by Firecracker.
pub(crate) fn create(machine: &Machine, params: &Value) -> Result<(), String> {
    let (state, memory) = (string(params, "snapshot_path")?, string(params, "mem_file_path")?);
    let saved = machine.save()?;
    let text = json!({
        "guest": saved.guest.name(), "resources": saved.resources, "memory": machine.memory(),
    });
    let mut options = OpenOptions::new();
    options.create(true).write(true);
    let failed = |what: &str, file: &str, err| {
        format!("Cannot perform {what} on the {file} backing file: {err}")
    };
    let mut file = options
        .clone()
        .truncate(true)
        .open(state)
        .map_err(|err| failed("open", "snapshot", err))?;
    file.write_all(text.to_string().as_bytes()).map_err(|err| failed("write", "snapshot", err))?;
    let existed = Path::new(memory).exists();
    let mut file =
        options.truncate(false).open(memory).map_err(|err| failed("open", "memory", err))?;
    let size = file.metadata().map_err(|err| failed("get_metadata", "memory", err))?.len();
    if existed && size != machine.memory() {
        file.set_len(0).map_err(|err| failed("truncate", "memory", err))?;
    }
    file.set_len(machine.memory()).map_err(|err| failed("set_length", "memory", err))?;
    file.write_all(MARK).map_err(|err| failed("write", "memory", err))
}

/// `PUT /snapshot/load`.
pub(crate) fn load(machine: &mut Machine, params: &Value) -> Result<(), String> {
    const STATE: &str = "Failed to restore from snapshot: Failed to get snapshot state from file:";
    const MEMORY: &str = "Failed to restore from snapshot: Failed to load guest memory: Error creating guest memory from \
                          file: Failed to load guest memory:";
    let backend = params
        .get("mem_backend")
        .ok_or("missing field: either `mem_backend` or `mem_file_path` is required")?;
    let mut text = String::new();
    File::open(string(params, "snapshot_path")?)
        .and_then(|mut file| file.read_to_string(&mut text))
        .map_err(|err| format!("{STATE} {err}"))?;
    let state: Value = serde_json::from_str(&text)
        .map_err(|err| format!("{STATE} Failed to load snapshot state from file: {err}"))?;
    let mut mark = [0; MARK.len()];
    let size = File::open(string(backend, "backend_path")?)
        .and_then(|mut file| {
            file.read_exact(&mut mark)?;
            Ok(file.metadata()?.len())
        })
        .map_err(|err| format!("{MEMORY} {err}"))?;
    if mark != MARK || Some(size) != state.get("memory").and_then(Value::as_u64) {
        return Err(format!("{MEMORY} Invalid argument (os error 22)"));
    }
    let mut resources: std::collections::BTreeMap<String, Value> =
        serde_json::from_value(state.get("resources").cloned().unwrap_or_default())
            .map_err(|err| format!("{STATE} {err}"))?;
    for entry in params.get("network_overrides").and_then(Value::as_array).into_iter().flatten() {
        let device =
            resources.get_mut(&format!("network-interfaces/{}", string(entry, "iface_id")?));
        let device = device.ok_or(format!("{STATE} Unknown Network Device."))?;
        device["host_dev_name"] = string(entry, "host_dev_name")?.into();
    }
    if let Some(vsock) = params.get("vsock_override") {
        let device = resources.get_mut("vsock").ok_or(format!("{STATE} Unknown Vsock Device."))?;
        device["uds_path"] = string(vsock, "uds_path")?.into();
    }
    let guest = Guest::of_name(string(&state, "guest")?);
    machine.restore(Saved { guest, resources }).map_err(|err| {
        format!("Failed to restore from snapshot: Failed to build microVM from snapshot: {err}")
    })?;
    if params.get("resume_vm").and_then(Value::as_bool).unwrap_or(false) {
        machine.resume();
    }
    Ok(())
}

//! The machine that is configured, started, paused: everything but a machine.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::process::exit;

use serde_json::{Value, json};

use crate::console::Console;
use crate::guest::Guest;
use crate::sections::{self, LISTS, SINGLE};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotStarted,
    Running,
    Paused,
}

/// The state of a machine in a snapshot.
pub(crate) struct Saved {
    pub(crate) guest: Guest,
    pub(crate) resources: BTreeMap<String, Value>,
}

/// One microVM. Errors are Firecracker's words.
pub(crate) struct Machine {
    id: String,
    state: State,
    guest: Guest,
    /// The resources, by section of the configuration, `drives/<id>` for a drive.
    resources: BTreeMap<String, Value>,
    /// The metadata store.
    metadata: Value,
    /// Attached by PCI, devices can be added to a running machine.
    pci: bool,
}

impl Machine {
    pub(crate) fn new(id: &str, pci: bool) -> Self {
        Self {
            id: id.to_owned(),
            state: State::NotStarted,
            guest: Guest::Unknown,
            resources: BTreeMap::new(),
            metadata: Value::Null,
            pci,
        }
    }

    /// Returns the answer to `GET /`.
    pub(crate) fn info(&self) -> Value {
        let state = match self.state {
            State::NotStarted => "Not started",
            State::Running => "Running",
            State::Paused => "Paused",
        };
        json!({ "id": self.id, "state": state, "vmm_version": crate::VERSION, "app_name": "Firecracker" })
    }

    /// Returns a section with the values that were not set: what `GET` answers.
    pub(crate) fn section(&self, section: &str) -> Option<Value> {
        let set = self.resources.get(section);
        if set.is_none() && section != "machine-config" {
            return None;
        }
        Some(with_defaults(section, set.unwrap_or(&Value::Null)))
    }

    /// Returns the answer to `GET /vm/config`: the configuration, with one section per kind of resource.
    pub(crate) fn config(&self) -> Value {
        let mut config = json!({});
        for section in SINGLE {
            config[section] = self.section(section).into();
        }
        for (section, _) in LISTS {
            let prefix = format!("{section}/");
            let items = self.resources.iter().filter(|(name, _)| name.starts_with(&prefix));
            config[section] = items.map(|(_, item)| with_defaults(section, item)).collect();
        }
        config
    }

    /// Returns the answer to `GET /mmds`.
    pub(crate) fn metadata(&self) -> &Value {
        &self.metadata
    }

    /// `PUT /mmds`, and `--metadata`.
    pub(crate) fn put_metadata(&mut self, data: Value) {
        self.metadata = data;
    }

    /// Returns true if a device can be added to, and removed from, the running machine.
    pub(crate) fn plugs(&self, resource: &str) -> bool {
        self.pci && LISTS.iter().any(|(list, _)| resource.starts_with(&format!("{list}/")))
    }

    /// `DELETE /<name>`.
    pub(crate) fn remove(&mut self, name: &str) -> Result<(), String> {
        self.resources.remove(name).map(drop).ok_or_else(|| format!("Device not found: {name}"))
    }

    /// `PATCH /<name>` of a device: the fields of `value` replace the old fields.
    pub(crate) fn patch(&mut self, name: &str, value: &Value) -> Result<(), String> {
        let section = name.split('/').next().unwrap_or_default();
        let Some(Value::Object(device)) = self.resources.get(name) else {
            return Err(format!("Unable to patch the device: {name} was not found."));
        };
        let mut device = device.clone();
        device.extend(value.as_object().cloned().unwrap_or_default());
        let device = Value::Object(device);
        sections::check(section, &device)?;
        // Firecracker goes on reporting a pmem device's limit of the start.
        if section != "pmem" {
            self.resources.insert(name.to_owned(), device);
        }
        Ok(())
    }

    pub(crate) fn is_started(&self) -> bool {
        self.state != State::NotStarted
    }

    /// Takes a whole configuration file.
    pub(crate) fn configure(&mut self, text: &str) -> Result<(), String> {
        let config: Value =
            serde_json::from_str(text).map_err(|err| format!("Invalid JSON: {err}"))?;
        for section in ["boot-source", "drives"] {
            if config.get(section).is_none() {
                return Err(format!("Invalid JSON: missing field `{section}`"));
            }
        }
        for section in SINGLE {
            if let Some(value) = config.get(section).filter(|value| !value.is_null()) {
                self.put(section, value.clone())?;
            }
        }
        for (section, id) in LISTS {
            for item in config.get(section).and_then(Value::as_array).into_iter().flatten() {
                let id = string(item, id).map_err(|err| format!("Invalid JSON: {err}"))?;
                self.put(&format!("{section}/{id}"), item.clone())?;
            }
        }
        Ok(())
    }

    /// Takes one resource, as `PUT /<name>` does.
    pub(crate) fn put(&mut self, name: &str, value: Value) -> Result<(), String> {
        sections::check(name.split('/').next().unwrap_or_default(), &value)?;
        self.resources.insert(name.to_owned(), value);
        Ok(())
    }

    /// Loads the kernel. The guest runs when [`Machine::let_the_guest_run`] is called.
    pub(crate) fn start(&mut self, console: &Console) -> Result<(), String> {
        let Some(source) = self.resources.get("boot-source") else {
            return Err("Cannot start microvm without kernel configuration.".to_owned());
        };
        let mut image = Vec::new();
        File::open(string(source, "kernel_image_path")?)
            .and_then(|mut file| file.read_to_end(&mut image))
            .map_err(|err| format!("The kernel file cannot be opened: {err}"))?;
        self.guest = Guest::recognise(&image)?;
        self.bind_vsock()?;
        self.state = State::Running;
        console.log("Artificially kick devices");
        Ok(())
    }

    /// Acts the guest; does not come back from one that resets.
    pub(crate) fn let_the_guest_run(&self, console: &Console) {
        let serial = self.resources.get("serial");
        match serial.and_then(|serial| serial.get("serial_out_path")).and_then(Value::as_str) {
            Some(path) => drop(std::fs::write(path, self.guest.line())),
            None => console.raw(self.guest.line()),
        }
        if self.guest == Guest::Resets {
            stop(console);
        }
    }

    /// Returns true if Ctrl+Alt+Del ends the guest.
    pub(crate) fn hears_ctrl_alt_del(&self) -> bool {
        self.guest == Guest::Idle && self.state == State::Running
    }

    /// Returns the size of the guest's memory in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let config = self.section("machine-config").unwrap_or_default();
        config.get("mem_size_mib").and_then(Value::as_u64).unwrap_or(0) << 20
    }

    /// Returns the state to save; an error unless the guest is paused.
    pub(crate) fn save(&self) -> Result<Saved, String> {
        if self.state != State::Paused {
            return Err(
                "Cannot save the microVM state: Operation not allowed: the microVM is not paused"
                    .to_owned(),
            );
        }
        Ok(Saved { guest: self.guest, resources: self.resources.clone() })
    }

    /// Takes the state of a snapshot, with the devices opened as the VM's user. Paused, until resumed.
    pub(crate) fn restore(&mut self, saved: Saved) -> Result<(), String> {
        if !self.resources.is_empty() {
            return Err(
                "Loading a microVM snapshot not allowed after configuring boot-specific resources."
                    .to_owned(),
            );
        }
        for (name, value) in &saved.resources {
            let section = name.split('/').next().unwrap_or_default();
            if matches!(section, "drives" | "pmem") {
                sections::check(section, value)?;
            }
        }
        (self.guest, self.resources) = (saved.guest, saved.resources);
        self.bind_vsock()?;
        self.state = State::Paused;
        Ok(())
    }

    fn bind_vsock(&self) -> Result<(), String> {
        if let Some(vsock) = self.resources.get("vsock") {
            let path = string(vsock, "uds_path")?;
            let bound = UnixListener::bind(path)
                .map_err(|err| format!("Cannot create the vsock device: {err}"))?;
            crate::vsock::serve(bound, path.to_owned());
        }
        Ok(())
    }

    /// Resumes a paused guest.
    pub(crate) fn resume(&mut self) {
        self.state = State::Running;
    }

    /// `PATCH /vm`.
    pub(crate) fn set_state(&mut self, value: &Value) -> Result<(), String> {
        self.state = match string(value, "state")? {
            "Paused" => State::Paused,
            "Resumed" => State::Running,
            other => {
                return Err(format!("unknown variant `{other}`, expected `Paused` or `Resumed`"));
            }
        };
        Ok(())
    }
}

/// Exits like Firecracker after a reset of the guest.
pub(crate) fn stop(console: &Console) -> ! {
    console.log("Vmm is stopping.");
    console.log("Firecracker exiting successfully. exit_code=0");
    exit(0)
}

pub(crate) fn string<'a>(value: &'a Value, field: &str) -> Result<&'a str, String> {
    value.get(field).and_then(Value::as_str).ok_or_else(|| format!("missing field `{field}`"))
}

fn with_defaults(section: &str, set: &Value) -> Value {
    let mut value = sections::defaults(section);
    match (&mut value, set) {
        (Value::Object(value), Value::Object(set)) => value.extend(set.clone()),
        (_, set) if !set.is_null() => value = set.clone(),
        _ => {}
    }
    value
}

//! The machine that is configured, started, paused: everything but a machine.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Read as _;
use std::os::unix::net::UnixListener;
use std::process::exit;

use serde_json::{Value, json};

use crate::console::Console;
use crate::guest::Guest;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    NotStarted,
    Running,
    Paused,
}

/// One microVM. Errors are Firecracker's words.
pub(crate) struct Machine {
    id: String,
    state: State,
    guest: Guest,
    /// The resources, by section of the configuration, `drives/<id>` for a drive.
    resources: BTreeMap<String, Value>,
    vsock: Option<UnixListener>,
}

impl Machine {
    pub(crate) fn new(id: &str) -> Self {
        Self {
            id: id.to_owned(),
            state: State::NotStarted,
            guest: Guest::Unknown,
            resources: BTreeMap::new(),
            vsock: None,
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

    /// Returns the answer to `GET /machine-config`.
    pub(crate) fn machine_config(&self) -> Value {
        let mut config = json!({
            "vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"
        });
        if let (Some(config), Some(Value::Object(set))) =
            (config.as_object_mut(), self.resources.get("machine-config"))
        {
            config.extend(set.clone());
        }
        config
    }

    /// Returns the answer to `GET /vm/config`: the configuration, with one section per kind of resource.
    pub(crate) fn config(&self) -> Value {
        let mut config = json!({
            "boot-source": self.resources.get("boot-source"),
            "machine-config": self.machine_config(),
            "vsock": self.resources.get("vsock"),
        });
        for section in ["drives", "network-interfaces"] {
            let of_section = |(name, _): &(&String, &Value)| name.starts_with(section);
            let items = self.resources.iter().filter(of_section).map(|(_, item)| item.clone());
            config[section] = items.collect();
        }
        config
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
        for section in ["machine-config", "boot-source", "vsock"] {
            if let Some(value) = config.get(section).filter(|value| !value.is_null()) {
                self.put(section, value.clone())?;
            }
        }
        for (section, id) in [("drives", "drive_id"), ("network-interfaces", "iface_id")] {
            for item in config.get(section).and_then(Value::as_array).into_iter().flatten() {
                let id = string(item, id).map_err(|err| format!("Invalid JSON: {err}"))?;
                self.put(&format!("{section}/{id}"), item.clone())?;
            }
        }
        Ok(())
    }

    /// Takes one resource, as `PUT /<name>` does.
    pub(crate) fn put(&mut self, name: &str, value: Value) -> Result<(), String> {
        match name.split('/').next() {
            Some("boot-source") => {
                let path = string(&value, "kernel_image_path")?;
                File::open(path).map_err(|err| {
                    format!("Boot source error: The kernel file cannot be opened: {err}")
                })?;
            }
            Some("machine-config") => check_machine(&value)?,
            Some("drives") => open_drive(&value)?,
            _ => {}
        }
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
        if let Some(vsock) = self.resources.get("vsock") {
            let path = string(vsock, "uds_path")?;
            let bound = UnixListener::bind(path)
                .map_err(|err| format!("Cannot create the vsock device: {err}"))?;
            self.vsock = Some(bound);
        }
        self.state = State::Running;
        console.log("Artificially kick devices");
        Ok(())
    }

    /// Acts the guest; does not come back from one that resets.
    pub(crate) fn let_the_guest_run(&self, console: &Console) {
        console.raw(self.guest.line());
        if self.guest == Guest::Resets {
            stop(console);
        }
    }

    /// Returns true if Ctrl+Alt+Del ends the guest.
    pub(crate) fn hears_ctrl_alt_del(&self) -> bool {
        self.guest == Guest::Idle && self.state == State::Running
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

fn check_machine(value: &Value) -> Result<(), String> {
    let number = |field: &str| {
        value.get(field).and_then(Value::as_u64).ok_or_else(|| format!("missing field `{field}`"))
    };
    if !(1..=32).contains(&number("vcpu_count")?) {
        return Err("VM config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an even \
                    number if SMT is enabled."
            .to_owned());
    }
    if number("mem_size_mib")? == 0 {
        return Err("VM config error: The memory size (MiB) is invalid.".to_owned());
    }
    Ok(())
}

/// As the VM's user, which is the point: a drive that user may not open does not boot.
fn open_drive(value: &Value) -> Result<(), String> {
    const REFUSED: &str = "Block device error: Unable to create the virtio block device: Virtio backend error: Error \
                           manipulating the backing file:";
    let path = string(value, "path_on_host")?;
    let read_only = value.get("is_read_only").and_then(Value::as_bool).unwrap_or(false);
    OpenOptions::new()
        .read(true)
        .write(!read_only)
        .open(path)
        .map(drop)
        .map_err(|err| format!("{REFUSED} {err} {path}"))
}

//! Firecracker's configuration as JSON: a file, or requests.

use jail_cmd::{JailerVersion, in_jail};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::merge::{LISTS, merge};
use super::vm_config::{MachineFiles, VmConfig};
use super::{Boot, releases};
use crate::error::{Error, ErrorKind, Result};

/// The sections with a path of their own in the API, in the order of the requests.
const PATHS: [(&str, &str); 8] = [
    ("machine-config", "/machine-config"),
    ("cpu-config", "/cpu-config"),
    ("boot-source", "/boot-source"),
    ("vsock", "/vsock"),
    ("balloon", "/balloon"),
    ("entropy", "/entropy"),
    ("memory-hotplug", "/hotplug/memory"),
    ("serial", "/serial"),
];

/// A request that configures Firecracker before the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct ConfigRequest {
    pub(crate) path: String,
    pub(crate) body: Value,
}

impl ConfigRequest {
    /// Boots the configured machine.
    pub(crate) fn start() -> Self {
        let body = json!({ "action_type": "InstanceStart" });
        Self { path: "/actions".to_owned(), body }
    }

    /// Loads a snapshot.
    pub(crate) fn load(body: Value) -> Self {
        Self { path: "/snapshot/load".to_owned(), body }
    }
}

/// The whole configuration of a machine, with the caller's own keys.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Document(Map<String, Value>);

impl Document {
    /// The configuration of a machine with these files.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidInput`] with the field's name and value if no Firecracker accepts it.
    pub(crate) fn new(boot: &Boot, files: MachineFiles) -> Result<Self> {
        let failed = || Error::new(ErrorKind::InvalidInput, "write the VM's configuration");
        let config = serde_json::to_value(VmConfig::new(boot, files)?)
            .map_err(|error| failed().source_of(error))?;
        let Value::Object(mut config) = config else { return Err(failed()) };
        boot.extra.iter().try_for_each(|extra| merge(&mut config, extra))?;
        Ok(Self(config))
    }

    /// Returns the first release that accepts the configuration.
    pub(crate) fn first_release(&self) -> JailerVersion {
        releases::first_release(&self.0)
    }

    /// Refuses a configuration with a field that `release` lacks.
    pub(crate) fn check_release(&self, release: JailerVersion) -> Result<()> {
        releases::check(&self.0, release)
    }

    /// Returns the content of `/cpu-config.json`.
    pub(crate) fn cpu_config(&self) -> Option<String> {
        self.0.get("cpu-config").filter(|template| template.is_object()).map(pretty)
    }

    /// Returns the content of `/vm.json`, which Firecracker reads with `--config-file`.
    pub(crate) fn file(&self) -> String {
        let mut file = self.0.clone();
        // An object is accepted from 1.13.0 on; a path always was.
        if let Some(template) = file.get_mut("cpu-config").filter(|template| template.is_object()) {
            *template = json!(format!("/{}", in_jail::CPU_CONFIG));
        }
        pretty(&Value::Object(file))
    }

    /// Returns the requests that configure the same machine, without the start.
    pub(crate) fn requests(&self) -> Vec<ConfigRequest> {
        let mut rest = self.0.clone();
        let mut requests = Vec::new();
        let mut put = |path: String, body: Value| requests.push(ConfigRequest { path, body });
        for (section, path) in PATHS {
            if let Some(body) = rest.remove(section) {
                put(path.to_owned(), body);
            }
        }
        for (section, id) in LISTS {
            if let Some(Value::Array(devices)) = rest.remove(section) {
                for device in devices {
                    let id = device.get(id).and_then(Value::as_str).unwrap_or_default();
                    put(format!("/{section}/{id}"), device);
                }
            }
        }
        // The metadata service names network interfaces.
        if let Some(body) = rest.remove("mmds-config") {
            put("/mmds/config".to_owned(), body);
        }
        // Sections of `Boot::extra`.
        for (section, body) in rest {
            put(format!("/{section}"), body);
        }
        requests
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

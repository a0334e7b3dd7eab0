//! The sections of the configuration, and their paths in the API.

use std::fs::{File, OpenOptions};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// The sections of one resource.
pub(crate) const SINGLE: [&str; 8] = [
    "machine-config",
    "boot-source",
    "cpu-config",
    "vsock",
    "balloon",
    "entropy",
    "memory-hotplug",
    "mmds-config",
];

/// The sections that are lists of devices, each with the field of a device's id.
pub(crate) const LISTS: [(&str, &str); 3] =
    [("drives", "drive_id"), ("network-interfaces", "iface_id"), ("pmem", "id")];

/// Returns the resource at a path of the API: the section, or `drives/<id>` for a drive. `None` for another path.
pub(crate) fn resource(path: &str) -> Option<&str> {
    match path {
        "mmds/config" => Some("mmds-config"),
        "hotplug/memory" => Some("memory-hotplug"),
        "serial" => Some(path),
        "mmds-config" | "memory-hotplug" => None,
        _ if SINGLE.contains(&path) => Some(path),
        _ => {
            let (section, id) = path.split_once('/')?;
            (!id.is_empty() && LISTS.iter().any(|(list, _)| *list == section)).then_some(path)
        }
    }
}

/// Returns the values that Firecracker reports for fields that were not set.
pub(crate) fn defaults(section: &str) -> Value {
    match section {
        "machine-config" => json!({
            "vcpu_count": 1, "mem_size_mib": 128, "smt": false, "track_dirty_pages": false, "huge_pages": "None"
        }),
        "balloon" => json!({
            "stats_polling_interval_s": 0, "free_page_hinting": false, "free_page_reporting": false
        }),
        "memory-hotplug" => json!({ "block_size_mib": 2, "slot_size_mib": 128 }),
        "mmds-config" => json!({
            "version": "V1", "ipv4_address": "169.254.169.254", "imds_compat": false
        }),
        "pmem" => json!({ "root_device": false, "read_only": false, "rate_limiter": null }),
        _ => json!({}),
    }
}

/// Refuses a value that Firecracker refuses, and opens the files that Firecracker opens, as the VM's user.
pub(crate) fn check(section: &str, value: &Value) -> Result<(), String> {
    let number = |field: &str| value.get(field).and_then(Value::as_u64);
    let path = |field: &str| value.get(field).and_then(Value::as_str);
    match section {
        "boot-source" => File::open(path("kernel_image_path").unwrap_or_default())
            .map(drop)
            .map_err(|err| format!("Boot source error: The kernel file cannot be opened: {err}")),
        "cpu-config" => path_or_object(value),
        "drives" => match path("socket") {
            Some(socket) => UnixStream::connect(socket).map(drop).map_err(|err| {
                format!("Block device error: Unable to create the vhost-user block device: {err}")
            }),
            None => open(value, "is_read_only").map_err(|err| {
                format!(
                    "Block device error: Unable to create the virtio block device: Virtio backend error: Error \
                     manipulating the backing file: {err}"
                )
            }),
        },
        "pmem" => open(value, "read_only")
            .map_err(|err| format!("Pmem device error: Error accessing backing file: {err}")),
        "network-interfaces" if number("mtu").is_some_and(|mtu| mtu < 68) => {
            Err("Network device error: Invalid MTU".to_owned())
        }
        "machine-config" => {
            let vcpus = number("vcpu_count").ok_or("missing field `vcpu_count`")?;
            let memory = number("mem_size_mib").ok_or("missing field `mem_size_mib`")?;
            if !(1..=32).contains(&vcpus) {
                return Err(
                    "VM config error: The number of vCPUs must be greater than 0, less than 32 and must be 1 or an \
                     even number if SMT is enabled."
                        .to_owned(),
                );
            }
            if memory == 0 {
                return Err("VM config error: The memory size (MiB) is invalid.".to_owned());
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

fn path_or_object(value: &Value) -> Result<(), String> {
    match value.as_str() {
        Some(path) => {
            let text = std::fs::read_to_string(path).map_err(|err| format!("File: {err}"))?;
            serde_json::from_str::<Value>(&text)
                .map(drop)
                .map_err(|err| format!("Invalid JSON: {err}"))
        }
        None => Ok(()),
    }
}

/// As the VM's user, which is the point: a drive that user may not open does not boot.
fn open(value: &Value, read_only: &str) -> Result<(), String> {
    let path = value.get("path_on_host").and_then(Value::as_str).unwrap_or_default();
    let read_only = value.get(read_only).and_then(Value::as_bool).unwrap_or(false);
    OpenOptions::new()
        .read(true)
        .write(!read_only)
        .open(path)
        .map(drop)
        .map_err(|err| format!("{err} {path}"))
}

//! The first release of Firecracker that accepts each field of its configuration.

use jail_cmd::JailerVersion;
use serde_json::{Map, Value};

use crate::error::{Error, ErrorKind, Result};

/// A field and the first release with it. The field is a path in the configuration, without the places in lists; a path
/// with `=` is one value of the field.
///
/// Found by comparing `firecracker.yaml` and the types that Firecracker reads the configuration into, over all tags from
/// v1.0.0 to v1.16.1. A field without a row is in all of them.
const FIRST: [(&str, JailerVersion); 24] = [
    ("balloon.free_page_hinting", JailerVersion::new(1, 14, 0)),
    ("balloon.free_page_reporting", JailerVersion::new(1, 14, 0)),
    ("cpu-config", JailerVersion::new(1, 4, 0)),
    ("cpu-config.kvm_capabilities", JailerVersion::new(1, 5, 0)),
    ("cpu-config.vcpu_features", JailerVersion::new(1, 5, 0)),
    ("drives.socket", JailerVersion::new(1, 6, 0)),
    ("entropy", JailerVersion::new(1, 4, 0)),
    // Devices of a running VM.
    ("hotplug", JailerVersion::new(1, 16, 0)),
    ("machine-config.cpu_template=T2A", JailerVersion::new(1, 3, 0)),
    ("machine-config.cpu_template=T2CL", JailerVersion::new(1, 3, 0)),
    ("machine-config.cpu_template=T2S", JailerVersion::new(1, 1, 1)),
    ("machine-config.cpu_template=V1N1", JailerVersion::new(1, 4, 0)),
    ("machine-config.huge_pages", JailerVersion::new(1, 7, 0)),
    ("memory-hotplug", JailerVersion::new(1, 14, 0)),
    ("mmds-config.imds_compat", JailerVersion::new(1, 13, 0)),
    ("network-interfaces.mtu", JailerVersion::new(1, 16, 0)),
    ("pmem", JailerVersion::new(1, 14, 0)),
    ("pmem.rate_limiter", JailerVersion::new(1, 16, 0)),
    ("serial", JailerVersion::new(1, 14, 0)),
    ("serial.rate_limiter", JailerVersion::new(1, 16, 0)),
    ("snapshot-load.mem_backend", JailerVersion::new(1, 1, 0)),
    ("snapshot-load.network_overrides", JailerVersion::new(1, 12, 0)),
    ("snapshot-load.vsock_override", JailerVersion::new(1, 16, 0)),
    ("snapshot-load.clock_realtime", JailerVersion::new(1, 16, 0)),
];

/// Two sections that some releases refuse together: from the first release of the first section until a release.
const APART: [(&str, &str, JailerVersion); 2] = [
    ("machine-config.huge_pages", "balloon", JailerVersion::new(1, 14, 0)),
    ("machine-config.huge_pages", "boot-source.initrd_path", JailerVersion::new(1, 11, 0)),
];

/// Returns the first release that accepts the whole configuration.
pub(crate) fn first_release(config: &Map<String, Value>) -> JailerVersion {
    let mut first = JailerVersion::OLDEST;
    each_field(config, &mut |field| first = first.max(first_with(field)));
    let has = |wanted: &str| has_field(config, wanted);
    for (one, other, until) in APART {
        if has(one) && has(other) {
            first = first.max(until);
        }
    }
    first
}

/// Refuses a configuration with a field that `release` lacks.
pub(crate) fn check(config: &Map<String, Value>, release: JailerVersion) -> Result<()> {
    // The newest, so that one new Firecracker is enough.
    let mut newest: Option<(JailerVersion, String)> = None;
    each_field(config, &mut |field| {
        let first = first_with(field);
        if release < first && newest.as_ref().is_none_or(|(newest, _)| *newest < first) {
            newest = Some((first, field.to_owned()));
        }
    });
    if let Some((_, field)) = newest {
        return Err(unsupported(&field, release));
    }
    let has = |wanted: &str| has_field(config, wanted);
    for (one, other, until) in APART {
        if release < until && has(one) && has(other) {
            return Err(Error::new(ErrorKind::Unsupported, "plan the machine").because(format!(
                "Firecracker {release} refuses {one} together with {other}; {until} is the first release that accepts both"
            )).hinted("Install a newer Firecracker, or leave one of them out."));
        }
    }
    Ok(())
}

/// Refuses an option that `release` lacks, such as `hotplug` or `snapshot-load.clock_realtime`.
pub(crate) fn require(field: &str, release: JailerVersion) -> Result<()> {
    if release < first_with(field) { Err(unsupported(field, release)) } else { Ok(()) }
}

fn unsupported(field: &str, release: JailerVersion) -> Error {
    Error::new(ErrorKind::Unsupported, format!("configure {field}"))
        .because(format!(
            "Firecracker {release} lacks it; {} is the first release that has it",
            first_with(field)
        ))
        .hinted("Install a newer Firecracker, or leave the option out.")
}

fn first_with(field: &str) -> JailerVersion {
    let row = FIRST.iter().find(|(known, _)| *known == field);
    row.map_or(JailerVersion::OLDEST, |(_, first)| *first)
}

fn has_field(config: &Map<String, Value>, wanted: &str) -> bool {
    let mut found = false;
    each_field(config, &mut |field| found |= field == wanted);
    found
}

/// Calls `each` with each field, and with each text value of a field.
fn each_field(config: &Map<String, Value>, each: &mut dyn FnMut(&str)) {
    for (section, value) in config {
        each(section);
        walk(section, value, each);
    }
}

fn walk(path: &str, value: &Value, each: &mut dyn FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = format!("{path}.{name}");
                each(&path);
                walk(&path, value, each);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| walk(path, item, each)),
        Value::String(text) => each(&format!("{path}={text}")),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

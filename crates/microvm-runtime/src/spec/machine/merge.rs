//! Merging JSON of the caller's into a configuration.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

const OPERATION: &str = "merge `Boot::extra`";

/// The lists of devices, each with the field of a device's id.
pub(super) const LISTS: [(&str, &str); 3] =
    [("drives", "drive_id"), ("network-interfaces", "iface_id"), ("pmem", "id")];

/// Adds the keys of `extra` to `config`. A key that both have is an error, unless both values are objects, which are
/// merged; items of a list of devices are merged by their id.
pub(super) fn merge(config: &mut Map<String, Value>, extra: &Value) -> Result<()> {
    let Value::Object(extra) = extra else {
        return Err(Error::invalid(OPERATION, "it is no JSON object")
            .hinted("Give an object of Firecracker's keys."));
    };
    for (name, value) in extra {
        let list = LISTS.iter().find(|(list, _)| list == name);
        match (list, config.get_mut(name), value) {
            (Some((_, id)), Some(Value::Array(items)), Value::Array(more)) => {
                merge_list(items, more, name, id)?;
            }
            (_, Some(Value::Object(into)), Value::Object(more)) => merge_object(into, more, name)?,
            (_, Some(_), _) => return Err(twice(name)),
            (_, None, _) => {
                config.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

fn merge_list(items: &mut Vec<Value>, more: &[Value], list: &str, id: &str) -> Result<()> {
    for device in more {
        let same = |item: &&mut Value| item.get(id).is_some() && item.get(id) == device.get(id);
        match (items.iter_mut().find(same), device) {
            (Some(Value::Object(item)), Value::Object(device)) => {
                let mut device = device.clone();
                device.remove(id);
                merge_object(item, &device, list)?;
            }
            _ => items.push(device.clone()),
        }
    }
    Ok(())
}

fn merge_object(
    into: &mut Map<String, Value>,
    more: &Map<String, Value>,
    path: &str,
) -> Result<()> {
    for (name, value) in more {
        let path = format!("{path}.{name}");
        match (into.get_mut(name), value) {
            (Some(Value::Object(into)), Value::Object(more)) => merge_object(into, more, &path)?,
            (Some(_), _) => return Err(twice(&path)),
            (None, _) => {
                into.insert(name.clone(), value.clone());
            }
        }
    }
    Ok(())
}

fn twice(path: &str) -> Error {
    Error::invalid(OPERATION, format!("the key {path:?} is given twice"))
        .hinted("Set it with the spec's own method, or leave that out.")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn merged(extra: &[Value]) -> Result<Value> {
        let mut config = json!({
            "machine-config": { "vcpu_count": 1 },
            "drives": [{ "drive_id": "a", "path_on_host": "/a" }],
        });
        for extra in extra {
            merge(config.as_object_mut().unwrap(), extra)?;
        }
        Ok(config)
    }

    #[test]
    fn unknown_keys_are_merged() {
        let extra = json!({
            "machine-config": { "new": { "x": 1 } },
            "drives": [{ "drive_id": "a", "new": true }, { "drive_id": "b" }],
            "new-device": [1],
        });
        assert_eq!(
            merged(&[extra, json!({ "machine-config": { "new": { "y": 2 } } })]).unwrap(),
            json!({
                "machine-config": { "vcpu_count": 1, "new": { "x": 1, "y": 2 } },
                "drives": [
                    { "drive_id": "a", "path_on_host": "/a", "new": true }, { "drive_id": "b" },
                ],
                "new-device": [1],
            })
        );
    }

    #[test]
    fn two_values_are_refused() {
        for (extra, path) in [
            (vec![json!({ "machine-config": { "vcpu_count": 1 } })], "machine-config.vcpu_count"),
            (vec![json!({ "machine-config": 7 })], "machine-config"),
            (vec![json!({ "drives": { "a": 1 } })], "drives"),
            (
                vec![json!({ "drives": [{ "drive_id": "a", "path_on_host": "/b" }] })],
                "drives.path_on_host",
            ),
            (vec![json!({ "new": 1 }), json!({ "new": 1 })], "new"),
        ] {
            let error = merged(&extra).unwrap_err();
            assert!(error.to_string().contains(&format!("{path:?} is given twice")), "{error}");
        }
        assert!(merged(&[json!([1])]).unwrap_err().to_string().contains("no JSON object"));
    }
}

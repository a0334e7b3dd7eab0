//! The paths, ids and control group parent of all jails of a launcher: [`JailerConfig`].

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, VmRuntimeResult};

/// The jailer's path, the chroot base, and the default uid, gid and control group parent of a VM.
///
/// The fields are exactly the fields of the 0.4 API, so that struct literals keep compiling. All other settings of a VM
/// are in a [`JailSpec`](crate::JailSpec).
///
/// With serde, a missing field has its default, and an unknown field is an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JailerConfig {
    /// Path of the official `jailer` (`/usr/bin/jailer`).
    pub jailer_bin: PathBuf,
    /// Uid the VMM runs as (123). 0 and `u32::MAX` are refused when the configuration is used.
    pub uid: u32,
    /// Gid the VMM runs as (100). 0 and `u32::MAX` are refused when the configuration is used.
    pub gid: u32,
    /// Directory below which each jail is made (`/srv/jailer`): absolute, no link in it, writable by root alone.
    pub chroot_base: PathBuf,
    /// Parent of each VM's control group, relative to the hierarchy's mount (`microvm.slice`).
    pub cgroup_parent: String,
    /// Control groups v2 (`true`) or v1.
    pub cgroup_v2: bool,
    /// NUMA node for the VMM's memory and CPUs.
    pub numa_node: Option<u32>,
}

impl Default for JailerConfig {
    fn default() -> Self {
        Self {
            jailer_bin: PathBuf::from("/usr/bin/jailer"),
            uid: 123,
            gid: 100,
            chroot_base: PathBuf::from("/srv/jailer"),
            cgroup_parent: "microvm.slice".to_owned(),
            cgroup_v2: true,
            numa_node: None,
        }
    }
}

/// The environment variables a configuration is read from.
mod var {
    pub(super) const JAILER_BIN: &str = "MICROVM_JAILER_BIN";
    pub(super) const UID: &str = "MICROVM_JAILER_UID";
    pub(super) const GID: &str = "MICROVM_JAILER_GID";
    pub(super) const CHROOT_BASE: &str = "MICROVM_JAILER_CHROOT_BASE";
    pub(super) const CGROUP_PARENT: &str = "MICROVM_JAILER_CGROUP_PARENT";
    pub(super) const CGROUP_VERSION: &str = "MICROVM_JAILER_CGROUP_VERSION";
    pub(super) const NUMA_NODE: &str = "MICROVM_JAILER_NUMA_NODE";
}

impl JailerConfig {
    /// Reads `MICROVM_JAILER_BIN`, `_UID`, `_GID`, `_CHROOT_BASE`, `_CGROUP_PARENT`, `_CGROUP_VERSION` (`1` or `2`)
    /// and `_NUMA_NODE`; what is unset or cannot be parsed falls back to the default.
    ///
    /// A typo in `MICROVM_JAILER_UID` so runs the VM as uid 123: prefer [`try_from_env`](Self::try_from_env).
    #[must_use]
    pub fn from_env() -> Self {
        Self::lenient(&|name| std::env::var(name).ok())
    }

    /// Reads the same variables as [`from_env`](Self::from_env), and refuses a bad value by name.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) names the variable and its value: one that is not UTF-8, a
    /// uid, gid or NUMA node that is not a `u32`, a cgroup version other than `1` or `2`, an empty path or parent.
    pub fn try_from_env() -> VmRuntimeResult<Self> {
        Self::strict(&|name| std::env::var_os(name))
    }

    fn lenient(get: &dyn Fn(&str) -> Option<String>) -> Self {
        let default = Self::default();
        let number = |name| get(name).and_then(|value| value.parse::<u32>().ok());
        Self {
            jailer_bin: get(var::JAILER_BIN).map_or(default.jailer_bin, PathBuf::from),
            uid: number(var::UID).unwrap_or(default.uid),
            gid: number(var::GID).unwrap_or(default.gid),
            chroot_base: get(var::CHROOT_BASE).map_or(default.chroot_base, PathBuf::from),
            cgroup_parent: get(var::CGROUP_PARENT).unwrap_or(default.cgroup_parent),
            cgroup_v2: get(var::CGROUP_VERSION)
                .map_or(default.cgroup_v2, |value| value.trim() != "1"),
            numa_node: number(var::NUMA_NODE),
        }
    }

    fn strict(get: &dyn Fn(&str) -> Option<std::ffi::OsString>) -> VmRuntimeResult<Self> {
        let text = |name: &str| match get(name).map(std::ffi::OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if value.trim().is_empty() => Err(refuse(name, &value, "it is empty")),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(value)) => Err(refuse(name, &value.to_string_lossy(), "it is not UTF-8")),
        };
        let number = |name: &str| match text(name)? {
            None => Ok(None),
            Some(value) => match value.trim().parse::<u32>() {
                Ok(number) => Ok(Some(number)),
                Err(error) => {
                    Err(refuse(name, &value, "it is not a number of 32 bits").source_of(error))
                }
            },
        };
        let cgroup_v2 = match text(var::CGROUP_VERSION)? {
            None => None,
            Some(value) => match value.trim() {
                "1" => Some(false),
                "2" => Some(true),
                _ => {
                    return Err(refuse(var::CGROUP_VERSION, &value, "it is neither 1 nor 2").into());
                }
            },
        };
        let default = Self::default();
        Ok(Self {
            jailer_bin: text(var::JAILER_BIN)?.map_or(default.jailer_bin, PathBuf::from),
            uid: number(var::UID)?.unwrap_or(default.uid),
            gid: number(var::GID)?.unwrap_or(default.gid),
            chroot_base: text(var::CHROOT_BASE)?.map_or(default.chroot_base, PathBuf::from),
            cgroup_parent: text(var::CGROUP_PARENT)?.unwrap_or(default.cgroup_parent),
            cgroup_v2: cgroup_v2.unwrap_or(default.cgroup_v2),
            numa_node: number(var::NUMA_NODE)?,
        })
    }
}

fn refuse(name: &str, value: &str, because: &str) -> Error {
    Error::invalid(
        "read the configuration from the environment",
        format!("{name}={value:?}: {because}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lenient(pairs: &[(&str, &str)]) -> JailerConfig {
        JailerConfig::lenient(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
        })
    }

    fn strict(pairs: &[(&str, &str)]) -> VmRuntimeResult<JailerConfig> {
        JailerConfig::strict(&|name| {
            pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).into())
        })
    }

    #[test]
    fn nothing_set_is_the_default() {
        assert_eq!(lenient(&[]), JailerConfig::default());
        assert_eq!(strict(&[]).unwrap(), JailerConfig::default());
    }

    #[test]
    fn every_variable_is_read() {
        let pairs = [
            ("MICROVM_JAILER_BIN", "/opt/jailer"),
            ("MICROVM_JAILER_UID", "5001"),
            ("MICROVM_JAILER_GID", "5002"),
            ("MICROVM_JAILER_CHROOT_BASE", "/j"),
            ("MICROVM_JAILER_CGROUP_PARENT", "vms"),
            ("MICROVM_JAILER_CGROUP_VERSION", " 1 "),
            ("MICROVM_JAILER_NUMA_NODE", "1"),
        ];
        let want = JailerConfig {
            jailer_bin: "/opt/jailer".into(),
            uid: 5001,
            gid: 5002,
            chroot_base: "/j".into(),
            cgroup_parent: "vms".into(),
            cgroup_v2: false,
            numa_node: Some(1),
        };
        assert_eq!(lenient(&pairs), want);
        assert_eq!(strict(&pairs).unwrap(), want);
    }

    #[test]
    fn strict_refuses_bad_values() {
        for (name, value) in [
            ("MICROVM_JAILER_UID", "nobody"),
            ("MICROVM_JAILER_GID", "-1"),
            ("MICROVM_JAILER_NUMA_NODE", "x"),
            ("MICROVM_JAILER_CGROUP_VERSION", "3"),
        ] {
            assert_eq!(lenient(&[(name, value)]), JailerConfig::default(), "{name}");
            let refused = strict(&[(name, value)]).unwrap_err().to_string();
            assert!(refused.contains(name) && refused.contains(value), "{refused}");
        }
    }

    #[test]
    fn json_may_be_partial() {
        let config = JailerConfig { uid: 7, numa_node: Some(1), ..JailerConfig::default() };
        let json = serde_json::to_string(&config).unwrap();
        assert_eq!(serde_json::from_str::<JailerConfig>(&json).unwrap(), config);
        let partial: JailerConfig = serde_json::from_str(r#"{"uid": 7, "numa_node": 1}"#).unwrap();
        assert_eq!(partial, config);
        let error = serde_json::from_str::<JailerConfig>(r#"{"uuid": 7}"#).unwrap_err();
        assert!(error.to_string().contains("uuid"), "{error}");
    }
}

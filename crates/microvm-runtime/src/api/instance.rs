//! The microVM's state and actions in the API.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use crate::text::{QUOTED, escaped};

/// Firecracker's description of the instance: the response to `GET /`.
///
/// The VM may answer anything: each text is escaped and cut to 256 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// The instance's id, which is the jail's.
    #[serde(deserialize_with = "harmless")]
    pub id: String,
    /// The guest's state.
    pub state: InstanceState,
    /// Firecracker's release, such as `1.16.1`.
    #[serde(default, deserialize_with = "harmless")]
    pub vmm_version: String,
    /// `Firecracker`.
    #[serde(default, deserialize_with = "harmless")]
    pub app_name: String,
}

/// The state of a guest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum InstanceState {
    /// The guest was not booted.
    #[serde(rename = "Not started")]
    NotStarted,
    /// The guest runs.
    Running,
    /// The guest is paused; memory and devices are kept.
    Paused,
    /// A state that this release of the crate does not know.
    #[serde(untagged, deserialize_with = "harmless")]
    Other(String),
}

impl fmt::Display for InstanceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotStarted => "Not started",
            Self::Running => "Running",
            Self::Paused => "Paused",
            Self::Other(state) => state,
        })
    }
}

/// A text of the VM's, escaped and cut.
fn harmless<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    String::deserialize(deserializer).map(|text| escaped(text, QUOTED))
}

/// An action of Firecracker's (`PUT /actions`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Action {
    /// Boots the guest that was configured through the API.
    InstanceStart,
    /// Presses the three keys: a Linux guest with a keyboard driver shuts down. x86_64 only.
    SendCtrlAltDel,
    /// Writes the metrics now.
    FlushMetrics,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_states_are_read() {
        let said = r#"{"id":"vm-1","state":"Not started","vmm_version":"1.16.1","app_name":"Firecracker"}"#;
        let info: InstanceInfo = serde_json::from_str(said).unwrap();
        assert_eq!((info.id.as_str(), &info.state), ("vm-1", &InstanceState::NotStarted));
        let said = r#"{"id":"vm-1","state":"Dreaming","else":1}"#;
        let info: InstanceInfo = serde_json::from_str(said).unwrap();
        assert_eq!(info.state, InstanceState::Other("Dreaming".to_owned()));
    }

    #[test]
    fn a_vms_texts_are_harmless() {
        let text = format!(
            r#"{{"id":"\u001b[31m","state":"\u001b]0;\u0007","vmm_version":"{}"}}"#,
            "9".repeat(10_000)
        );
        let info: InstanceInfo = serde_json::from_str(&text).unwrap();
        assert_eq!(info.id, "\\u{1b}[31m");
        assert_eq!(info.state, InstanceState::Other("\\u{1b}]0;\\u{7}".to_owned()));
        assert_eq!(info.vmm_version.len(), QUOTED + "…".len());
    }
}

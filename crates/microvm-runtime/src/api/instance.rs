//! What the API says of the microVM, and what it can be told.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What Firecracker says of itself: the answer to `GET /`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct InstanceInfo {
    /// The id it was started with: the jail's.
    pub id: String,
    /// What the guest does.
    pub state: InstanceState,
    /// Firecracker's release, such as `1.16.1`.
    #[serde(default)]
    pub vmm_version: String,
    /// `Firecracker`.
    #[serde(default)]
    pub app_name: String,
}

/// What a guest does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum InstanceState {
    /// It was not booted.
    #[serde(rename = "Not started")]
    NotStarted,
    /// It runs.
    Running,
    /// It is held, its memory and its devices kept.
    Paused,
    /// What this release of the crate has no name for.
    #[serde(untagged)]
    Other(String),
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
    fn what_firecracker_says_is_read_also_in_words_to_come() {
        let said = r#"{"id":"vm-1","state":"Not started","vmm_version":"1.16.1","app_name":"Firecracker"}"#;
        let info: InstanceInfo = serde_json::from_str(said).unwrap();
        assert_eq!((info.id.as_str(), &info.state), ("vm-1", &InstanceState::NotStarted));
        let said = r#"{"id":"vm-1","state":"Dreaming","else":1}"#;
        let info: InstanceInfo = serde_json::from_str(said).unwrap();
        assert_eq!(info.state, InstanceState::Other("Dreaming".to_owned()));
    }
}

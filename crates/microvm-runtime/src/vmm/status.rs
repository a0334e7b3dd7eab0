//! The exit status of a process.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The exit status of a process, as far as the kernel reports the status.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// The kernel cannot report the status: the VMM was not our child, and the kernel is older than 6.15.
    #[default]
    Unknown,
}

impl ExitStatus {
    /// Converts a status of `waitpid(2)`.
    pub(crate) fn from_wait(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Exited((status >> 8) & 0xff),
            signal => Self::Signaled(signal),
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exited(code) => write!(f, "exit status {code}"),
            Self::Signaled(signal) => write!(f, "signal {signal}"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wait_statuses_are_decoded() {
        assert_eq!(ExitStatus::from_wait(0), ExitStatus::Exited(0));
        assert_eq!(ExitStatus::from_wait(148 << 8), ExitStatus::Exited(148));
        assert_eq!(ExitStatus::from_wait(9), ExitStatus::Signaled(9));
        assert_eq!(ExitStatus::from_wait(6 | 0x80), ExitStatus::Signaled(6), "with a core dump");
    }
}

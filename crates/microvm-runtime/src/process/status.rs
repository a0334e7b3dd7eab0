//! How a process ended.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How a process ended, as far as the kernel can tell.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ExitStatus {
    /// By itself, with this code.
    Exited(i32),
    /// By this signal.
    Signaled(i32),
    /// The kernel cannot tell: the VMM was not our child, and the kernel is older than 6.15.
    #[default]
    Unknown,
}

impl ExitStatus {
    /// From a status as `waitpid(2)` gives it.
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
    fn a_wait_status_is_a_code_or_a_signal() {
        assert_eq!(ExitStatus::from_wait(0), ExitStatus::Exited(0));
        assert_eq!(ExitStatus::from_wait(148 << 8), ExitStatus::Exited(148));
        assert_eq!(ExitStatus::from_wait(9), ExitStatus::Signaled(9));
        assert_eq!(ExitStatus::from_wait(6 | 0x80), ExitStatus::Signaled(6), "with a core dump");
    }
}

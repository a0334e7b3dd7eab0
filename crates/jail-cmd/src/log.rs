//! Firecracker's log: [`LogLevel`] and [`LogModule`].

use std::fmt;
use std::str::FromStr;

use crate::text::text_type;
use crate::{Error, ErrorKind};

/// The lowest severity that Firecracker logs: `--level`.
///
/// Printed with a capital first letter, the one form that every release takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum LogLevel {
    /// Nothing. From release 1.5.0 on.
    Off,
    /// Everything. From release 1.5.0 on.
    Trace,
    /// Details for finding a fault.
    Debug,
    /// Ordinary events.
    Info,
    /// Unexpected events that Firecracker recovers from.
    Warning,
    /// Failures that end a request or the VM.
    Error,
}

impl LogLevel {
    const ALL: [Self; 6] =
        [Self::Off, Self::Trace, Self::Debug, Self::Info, Self::Warning, Self::Error];
}

impl fmt::Display for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

impl FromStr for LogLevel {
    type Err = Error;

    /// Capitals do not matter, and `warn` is `Warning`, as to Firecracker.
    fn from_str(text: &str) -> Result<Self, Error> {
        let name = if text.eq_ignore_ascii_case("warn") { "warning" } else { text };
        Self::ALL
            .into_iter()
            .find(|level| level.to_string().eq_ignore_ascii_case(name))
            .ok_or_else(|| Error::new(ErrorKind::LogLevel, text, "there is no such level"))
    }
}

/// The one module that Firecracker logs, such as `vmm::devices`: `--module`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct LogModule(String);

text_type!(LogModule, check_module);

fn check_module(module: String) -> Result<String, Error> {
    let reason = if module.is_empty() {
        "it is empty"
    } else if module.starts_with('-') {
        "it begins with a hyphen"
    } else if module.contains(char::is_control) {
        "it has a control character"
    } else {
        return Ok(module);
    };
    Err(Error::new(ErrorKind::LogModule, module, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels() {
        for level in LogLevel::ALL {
            assert_eq!(level.to_string().parse::<LogLevel>().unwrap(), level);
        }
        assert_eq!("WARN".parse::<LogLevel>().unwrap(), LogLevel::Warning);
        for text in ["", "5", "warnings", "--no-seccomp"] {
            assert_eq!(text.parse::<LogLevel>().unwrap_err().value(), text);
        }
    }

    #[test]
    fn modules() {
        assert_eq!(LogModule::new("vmm::devices").unwrap().as_str(), "vmm::devices");
        for text in ["", "-h", "--", "--no-seccomp", "a\nb", "a\0"] {
            assert_eq!(LogModule::new(text).unwrap_err().value(), text);
        }
    }
}

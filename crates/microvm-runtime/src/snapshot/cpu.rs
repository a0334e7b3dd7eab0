//! The CPU of a host, as far as a snapshot depends on the CPU.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, ErrorKind, Result};
use crate::vmm::read_proc_file;

/// The CPU of a host (`/proc/cpuinfo`): a guest keeps what it found out about its CPU at boot, so that a snapshot runs
/// on this model only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[non_exhaustive]
pub struct Cpu {
    /// The vendor: `vendor_id`, or `CPU implementer`.
    pub vendor: String,
    /// The model: the numbers of family, model and stepping, or of variant, part and revision; and the model's name.
    pub model: String,
}

/// The path that is read.
const CPUINFO: &str = "/proc/cpuinfo";

/// The keys of the model, in the order of printing. A machine has those of its architecture.
const MODEL: [&str; 7] =
    ["cpu family", "model", "stepping", "CPU variant", "CPU part", "CPU revision", "model name"];

impl Cpu {
    /// Reads the first CPU of this host.
    pub(crate) fn of_this_host() -> Result<Self> {
        let failed = || Error::new(ErrorKind::Unsupported, "read the CPU's model").path(CPUINFO);
        let bytes = read_proc_file(CPUINFO).map_err(|error| failed().source_of(error))?;
        Self::parse(&String::from_utf8_lossy(&bytes))
            .ok_or_else(|| failed().because("it names no vendor"))
    }

    fn parse(text: &str) -> Option<Self> {
        // The first processor's lines end at the first empty line.
        let first = text.split("\n\n").next()?;
        let value = |wanted: &str| {
            first.lines().find_map(|line| {
                let (key, value) = line.split_once(':')?;
                (key.trim() == wanted).then(|| value.trim().to_owned())
            })
        };
        let vendor = value("vendor_id").or_else(|| value("CPU implementer"))?;
        let model = MODEL.iter().filter_map(|key| Some(format!("{key} {}", value(key)?)));
        Some(Self { vendor, model: model.collect::<Vec<_>>().join(", ") })
    }
}

impl fmt::Display for Cpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.vendor, self.model)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_architectures_are_read() {
        let x86 = "processor\t: 0\nvendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Xeon\n\
                   stepping\t: 7\n\nprocessor\t: 1\nvendor_id\t: Other\n";
        let cpu = Cpu::parse(x86).unwrap();
        assert_eq!(
            cpu.to_string(),
            "GenuineIntel (cpu family 6, model 85, stepping 7, model name Xeon)"
        );
        let arm =
            "processor\t: 0\nCPU implementer\t: 0x41\nCPU variant\t: 0x3\nCPU part\t: 0xd0c\n";
        let cpu = Cpu::parse(arm).unwrap();
        assert_eq!(cpu.to_string(), "0x41 (CPU variant 0x3, CPU part 0xd0c)");
        assert_eq!(Cpu::parse("processor : 0\n"), None);
        assert_eq!(Cpu::of_this_host().unwrap(), Cpu::of_this_host().unwrap());
    }
}

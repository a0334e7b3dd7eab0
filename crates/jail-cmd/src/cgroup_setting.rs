//! One `--cgroup` setting of the jailer: [`CgroupSetting`].

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, name};

/// Longest value, line feed included, in bytes: the kernel reads one page per write and drops the
/// rest.
const PAGE: usize = 4096;

/// A control group file and the value for that file: `--cgroup <file>=<value>` of the jailer.
///
/// The jailer splits at every `=`, so that a value with one, such as io.max's `8:0 rbps=1048576`,
/// cannot be passed at all: write that file before the start instead.
///
/// ```
/// use jail_cmd::CgroupSetting;
///
/// let setting = CgroupSetting::new("cpuset.cpus", "0-3,8")?;
/// assert_eq!(setting.controller(), "cpuset");
/// assert_eq!(setting.to_string(), "cpuset.cpus=0-3,8");
/// assert!(CgroupSetting::new("io.max", "8:0 rbps=1048576").is_err());
/// # Ok::<(), jail_cmd::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct CgroupSetting {
    file: String,
    value: String,
}

impl CgroupSetting {
    /// A value for a file.
    ///
    /// # Errors
    /// A file that is not `<controller>.<name>` of letters, digits, `-`, `_` and `.`, or is one of
    /// the core files (`cgroup.…`); a value that is empty, has a `=` or is not printable ASCII; one
    /// that the kernel would cut.
    pub fn new(file: impl Into<String>, value: impl Into<String>) -> Result<Self, Error> {
        let setting = Self { file: file.into(), value: value.into() };
        match setting.fault() {
            Some(reason) => Err(Error::new(ErrorKind::CgroupSetting, setting.to_string(), reason)),
            None => Ok(setting),
        }
    }

    /// The controller the file belongs to.
    #[must_use]
    pub fn controller(&self) -> &str {
        self.file.split('.').next().unwrap_or_default()
    }

    /// The file.
    #[must_use]
    pub fn file(&self) -> &str {
        &self.file
    }

    /// The value to write; the jailer appends a line feed.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    fn fault(&self) -> Option<String> {
        if let Some(fault) = name::fault(&self.file) {
            return Some(format!("of the file, {fault}"));
        }
        let in_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        let words = || self.file.split('.');
        let printable = |c: char| c.is_ascii_graphic() || c == ' ';
        let reason = if words().count() < 2
            || words().any(|word| word.is_empty() || !word.chars().all(in_word))
        {
            "the file is not <controller>.<name>"
        } else if !self.file.starts_with(|c: char| c.is_ascii_lowercase()) {
            "the controller does not begin with a letter"
        } else if self.controller() == "cgroup" {
            "it is a core file, of no controller"
        } else if self.value.trim().is_empty() {
            "the value is empty"
        } else if self.value.contains('=') {
            "the value has a `=`, at which the jailer would split it"
        } else if !self.value.chars().all(printable) {
            "the value is not printable ASCII"
        } else if self.value.len() >= PAGE {
            "the value is longer than a page"
        } else {
            return None;
        };
        Some(reason.into())
    }
}

impl fmt::Display for CgroupSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.file, self.value)
    }
}

impl FromStr for CgroupSetting {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.split_once('=') {
            Some((file, value)) => Self::new(file, value),
            None => Err(Error::new(ErrorKind::CgroupSetting, text, "it has no `=`")),
        }
    }
}

impl TryFrom<String> for CgroupSetting {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<CgroupSetting> for String {
    fn from(setting: CgroupSetting) -> Self {
        setting.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn setting_rules() {
        for (file, value, controller) in [
            ("pids.max", "64", "pids"),
            ("pids.max", "max", "pids"),
            ("cpu.max", "25000 100000", "cpu"),
            ("memory.limit_in_bytes", "-1", "memory"),
            ("hugetlb.2MB.max", "0", "hugetlb"),
            ("cpuset.cpus", "0-3,8", "cpuset"),
            ("io.max", "--", "io"),
        ] {
            let setting = CgroupSetting::new(file, value).unwrap();
            assert_eq!(
                (setting.file(), setting.value(), setting.controller()),
                (file, value, controller)
            );
            assert_eq!(setting.to_string().parse::<CgroupSetting>().unwrap(), setting);
        }
        for text in [
            "",
            "pids.max",
            "pids.max=",
            "pids.max= ",
            "a=b=c",
            "a.b=b=c",
            "io.max=8:0 rbps=1",
            "=1",
            ".max=1",
            "pids.=1",
            "pids=1",
            "pids..max=1",
            "../x.max=1",
            "/x.max=1",
            "a/b.max=1",
            "./pids.max=1",
            "-h.x=1",
            "--pids.max=1",
            "cgroup.procs=1",
            "pids.max=1\n",
            "pids.max=1\0",
            "pids.max=é",
            "pids.mäx=1",
            "0.x=1",
            &format!("pids.max={}", "1".repeat(4096)),
            &format!("pids.{}=1", "x".repeat(251)),
        ] {
            let error = text.parse::<CgroupSetting>().unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::CgroupSetting, text), "{error}");
        }
    }
}

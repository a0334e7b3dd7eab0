//! The jailer's arguments about control groups: [`CgroupVersion`], [`CgroupSetting`] and [`ParentCgroup`].

use std::fmt;
use std::str::FromStr;

use crate::text::text_type;
use crate::{Error, ErrorKind, JailId, name};

/// Longest value with its line feed, in bytes: the kernel takes one page a write and drops the rest.
const PAGE: usize = 4096;

/// The version of control groups the jailer uses, its `--cgroup-version`.
///
/// There is no default here: the jailer's is 1, and on a host without v1 that is an error only where a `--cgroup` is
/// given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum CgroupVersion {
    /// A hierarchy for each controller.
    V1,
    /// The unified hierarchy.
    V2,
}

impl fmt::Display for CgroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "1",
            Self::V2 => "2",
        })
    }
}

impl FromStr for CgroupVersion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        match text.parse::<u8>() {
            Ok(1) => Ok(Self::V1),
            Ok(2) => Ok(Self::V2),
            _ => Err(Error::new(ErrorKind::CgroupVersion, text, "there is no such version")),
        }
    }
}

/// A control group file and what the jailer writes to it, its `--cgroup <file>=<value>`.
///
/// The jailer splits at every `=`, so that a value with one, such as io.max's `8:0 rbps=1048576`, cannot be passed at
/// all: write that file before the start instead.
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
    /// A file that is not `<controller>.<name>` of letters, digits, `-`, `_` and `.`, or is one of the core files
    /// (`cgroup.…`); a value that is empty, has a `=` or is not printable ASCII; one that the kernel would cut.
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

    /// What is written to it; the jailer appends a line feed.
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

/// The control group above the jail's own, relative to the hierarchy's mount, the jailer's `--parent-cgroup`.
///
/// Without a `--cgroup` it is the group the VMM joins, with v2 and from release 1.6.0 on, where it exists; else it is
/// ignored in silence.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct ParentCgroup(String);

text_type!(ParentCgroup, check_parent);

impl ParentCgroup {
    /// The group of a jail in this one, `<parent>/<id>`: where the jailer makes it when it is given a `--cgroup`.
    #[must_use]
    pub fn join(&self, id: &JailId) -> Self {
        Self(format!("{}/{id}", self.0))
    }
}

fn check_parent(parent: String) -> Result<String, Error> {
    let reason = if parent.starts_with('/') {
        "it is absolute".into()
    } else if parent.starts_with('-') {
        "it begins with a hyphen".into()
    } else if let Some(fault) = parent.split('/').find_map(name::fault) {
        format!("in one of its names, {fault}")
    } else {
        return Ok(parent);
    };
    Err(Error::new(ErrorKind::ParentCgroup, parent, reason))
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

    #[test]
    fn parent_rules() {
        for parent in ["microvm.slice", "a/b/c", "a b", "é", "a/-b"] {
            assert_eq!(ParentCgroup::new(parent).unwrap().as_str(), parent);
        }
        for parent in [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "./a",
            "a/.",
            "a/../b",
            "-h",
            "--",
            "a\nb",
            "a\0",
            &"a".repeat(256),
        ] {
            let error = ParentCgroup::new(parent).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::ParentCgroup, parent), "{error}");
        }
        let id = JailId::new("vm-1").unwrap();
        assert_eq!(
            ParentCgroup::new("microvm.slice").unwrap().join(&id).as_str(),
            "microvm.slice/vm-1"
        );
    }

    #[test]
    fn version_is_1_or_2() {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            assert_eq!(version.to_string().parse::<CgroupVersion>().unwrap(), version);
        }
        for text in ["", "0", "3", "v1", "256", "-1", " 1"] {
            assert_eq!(text.parse::<CgroupVersion>().unwrap_err().value(), text);
        }
    }
}

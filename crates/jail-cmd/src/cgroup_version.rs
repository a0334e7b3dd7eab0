//! The value of the jailer's `--cgroup-version`.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// The version of control groups (`--cgroup-version`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub(crate) enum CgroupVersion {
    /// A hierarchy for each controller.
    V1,
    /// The unified hierarchy.
    V2,
}

impl CgroupVersion {
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::V1 => 1,
            Self::V2 => 2,
        }
    }
}

impl fmt::Display for CgroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.number().fmt(f)
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

#[cfg(test)]
mod tests {
    use super::*;

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

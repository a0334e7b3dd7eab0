//! The versions of control groups.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// Version of control groups (cgroups(7)).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "lowercase"))]
pub enum CgroupVersion {
    /// Legacy: one hierarchy per controller, or per set of controllers mounted together.
    V1,
    /// Unified: one hierarchy for all controllers.
    V2,
}

impl CgroupVersion {
    /// Returns the other version.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::V1 => Self::V2,
            Self::V2 => Self::V1,
        }
    }
}

impl fmt::Display for CgroupVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V1 => "v1",
            Self::V2 => "v2",
        })
    }
}

impl FromStr for CgroupVersion {
    type Err = Error;

    /// Parses `v1` or `v2`, or the number alone, as in the jailer's `--cgroup-version`.
    fn from_str(text: &str) -> Result<Self, Error> {
        match text {
            "1" | "v1" => Ok(Self::V1),
            "2" | "v2" => Ok(Self::V2),
            _ => Err(Error::new(ErrorKind::InvalidInput, format!("parse {text:?}"))
                .because("a version of control groups is v1 or v2")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn printed_version_is_parsed() {
        for version in [CgroupVersion::V1, CgroupVersion::V2] {
            assert_eq!(version.to_string().parse::<CgroupVersion>().unwrap(), version);
        }
        assert_eq!("2".parse::<CgroupVersion>().unwrap(), CgroupVersion::V2);
        for text in ["", "0", "3", "V1", "v12", "256", "-1", " 1"] {
            let error = text.parse::<CgroupVersion>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(&format!("{text:?}")), "{error}");
        }
    }
}

//! The jailer's resource limits: [`ResourceLimit`].

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// Smallest file size that holds a pid file: the jailer writes its own under the limit.
const MIN_FILE_SIZE: u64 = 10;

/// Smallest number of descriptors with one beside 0, 1 and 2: the jailer opens files under the
/// limit.
const MIN_OPEN_FILES: u64 = 4;

/// A resource limit of the VMM, soft and hard, the jailer's `--resource-limit`.
///
/// Source: `setrlimit(2)`, and `ResourceLimits` in Firecracker's
/// `src/jailer/src/resource_limits.rs`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum ResourceLimit {
    /// The largest size of a file that the VMM writes, in bytes (`RLIMIT_FSIZE`), drives included;
    /// at least 10.
    ///
    /// A write beyond this size ends the VMM by SIGXFSZ.
    FileSize(u64),
    /// One more than the highest descriptor of the VMM (`RLIMIT_NOFILE`); at least 4. The jailer's
    /// default is 2048.
    ///
    /// Beyond the host's `fs.nr_open` the jailer fails.
    OpenFiles(u64),
}

impl ResourceLimit {
    /// The limit's name on the jailer's command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::FileSize(_) => "fsize",
            Self::OpenFiles(_) => "no-file",
        }
    }

    /// Refuses a limit that ends the jailer itself.
    pub(crate) fn check(self) -> Result<(), Error> {
        match self.fault() {
            None => Ok(()),
            Some(reason) => Err(Error::new(ErrorKind::ResourceLimit, self.to_string(), reason)),
        }
    }

    fn fault(self) -> Option<&'static str> {
        match self {
            Self::FileSize(bytes) if bytes < MIN_FILE_SIZE => {
                Some("the jailer could not write its pid file")
            }
            Self::OpenFiles(count) if count < MIN_OPEN_FILES => {
                Some("the jailer could not open a file")
            }
            _ => None,
        }
    }
}

impl fmt::Display for ResourceLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::FileSize(value) | Self::OpenFiles(value)) = self;
        write!(f, "{}={value}", self.name())
    }
}

impl FromStr for ResourceLimit {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let refused = |reason| Error::new(ErrorKind::ResourceLimit, text, reason);
        let (name, value) = text.split_once('=').ok_or_else(|| refused("it has no `=`"))?;
        let value = value.parse().map_err(|_| refused("its value is not a 64-bit number"))?;
        let limit = match name {
            "fsize" => Self::FileSize(value),
            "no-file" => Self::OpenFiles(value),
            _ => return Err(refused("the jailer has no such limit")),
        };
        limit.fault().map_or(Ok(limit), |reason| Err(refused(reason)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limit_rules() {
        for (text, limit) in [
            ("fsize=10", ResourceLimit::FileSize(10)),
            ("fsize=18446744073709551615", ResourceLimit::FileSize(u64::MAX)),
            ("no-file=4", ResourceLimit::OpenFiles(4)),
            ("no-file=2048", ResourceLimit::OpenFiles(2048)),
        ] {
            assert_eq!(text.parse::<ResourceLimit>().unwrap(), limit);
            assert_eq!(limit.to_string(), text);
        }
        for text in [
            "",
            "no-file",
            "no-file=",
            "no-file=x",
            "no-file=-1",
            "no-file=1=1",
            "no-file=18446744073709551616",
            "nproc=1",
            "fsize=1",
            "fsize=9",
            "fsize=09",
            "no-file=0",
            "no-file=3",
            "=1",
            "FSIZE=100",
        ] {
            let error = text.parse::<ResourceLimit>().unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::ResourceLimit, text), "{error}");
        }
    }
}

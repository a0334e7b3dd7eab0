//! Releases of the jailer and of Firecracker, which are numbered alike: [`JailerVersion`].

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// A release number, as printed by `jailer --version` and `firecracker --version`.
///
/// A pre-release (`1.17.0-dev`) comes before its release and after every earlier one. A suffix of
/// `git describe` (`1.4.0-20-gabcdef0`, `-dirty`) changes nothing.
///
/// ```
/// use jail_cmd::{Feature, JailerVersion};
///
/// let release: JailerVersion = "Jailer v1.16.1\n\n".parse()?;
/// assert_eq!(release, JailerVersion::new(1, 16, 1));
/// assert!(release >= JailerVersion::OLDEST && release.supports(Feature::EnablePci));
/// # Ok::<(), jail_cmd::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct JailerVersion {
    major: u16,
    minor: u16,
    patch: u16,
    stage: Stage,
}

/// In the order of publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Stage {
    Before,
    Released,
}

impl JailerVersion {
    /// The oldest release this crate knows the arguments of.
    pub const OLDEST: Self = Self::new(1, 0, 0);

    /// The newest release this crate was compared with; later ones are taken to understand the
    /// same.
    pub const NEWEST: Self = Self::new(1, 16, 1);

    /// The release `major.minor.patch`.
    #[must_use]
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Self { major, minor, patch, stage: Stage::Released }
    }

    /// The first number.
    #[must_use]
    pub const fn major(self) -> u16 {
        self.major
    }

    /// The second number.
    #[must_use]
    pub const fn minor(self) -> u16 {
        self.minor
    }

    /// The third number.
    #[must_use]
    pub const fn patch(self) -> u16 {
        self.patch
    }

    /// Returns true for a pre-release of these numbers.
    #[must_use]
    pub const fn is_pre_release(self) -> bool {
        matches!(self.stage, Stage::Before)
    }
}

impl FromStr for JailerVersion {
    type Err = Error;

    /// Reads the first line of what `--version` prints, or the bare number.
    fn from_str(printed: &str) -> Result<Self, Error> {
        let line = printed.lines().next().unwrap_or_default().trim();
        parse(line).ok_or_else(|| Error::new(ErrorKind::Version, printed, "it is no version"))
    }
}

fn parse(line: &str) -> Option<JailerVersion> {
    let number =
        line.strip_prefix("Jailer ").or_else(|| line.strip_prefix("Firecracker ")).unwrap_or(line);
    let number = number.strip_prefix('v').unwrap_or(number);
    let (number, build) = number.split_once('+').unwrap_or((number, ""));
    let (number, suffix) =
        number.split_once('-').map_or((number, None), |(number, suffix)| (number, Some(suffix)));
    let in_semver = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-');
    if !build.chars().chain(suffix.unwrap_or_default().chars()).all(in_semver) {
        return None;
    }
    let mut numbers = number.split('.').map(|digits| {
        let canonical = digits.bytes().all(|byte| byte.is_ascii_digit())
            && (digits == "0" || !digits.starts_with('0'));
        canonical.then(|| digits.parse().ok()).flatten()
    });
    let version = JailerVersion {
        major: numbers.next()??,
        minor: numbers.next()??,
        patch: numbers.next()??,
        stage: suffix.map_or(Stage::Released, stage),
    };
    numbers.next().is_none().then_some(version)
}

/// `dev` and `rc.1` are before the release; `20-gabcdef0` and `dirty` come from `git describe`,
/// after it.
fn stage(suffix: &str) -> Stage {
    let describes = suffix == "dirty"
        || suffix.split_once("-g").is_some_and(|(commits, _)| commits.parse::<u32>().is_ok());
    if describes { Stage::Released } else { Stage::Before }
}

impl TryFrom<String> for JailerVersion {
    type Error = Error;

    fn try_from(text: String) -> Result<Self, Error> {
        text.parse()
    }
}

impl From<JailerVersion> for String {
    fn from(version: JailerVersion) -> Self {
        version.to_string()
    }
}

impl fmt::Display for JailerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)?;
        if self.is_pre_release() { f.write_str("-pre") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_programs_print() {
        for (printed, expected) in [
            ("Jailer v1.16.1\n\n", "1.16.1"),
            ("Jailer v1.0.0\n", "1.0.0"),
            ("Firecracker v1.16.1\n\nSupported snapshot data format versions: v1.0.0\n", "1.16.1"),
            ("v1.2.3", "1.2.3"),
            ("1.2.3", "1.2.3"),
            ("Jailer v1.17.0-dev", "1.17.0-pre"),
            ("Jailer v1.17.0-rc.1+build.7", "1.17.0-pre"),
            ("Jailer v1.4.0-20-gabcdef0", "1.4.0"),
            ("Jailer v1.4.0-dirty", "1.4.0"),
            ("Jailer v1.4.0+fuzz", "1.4.0"),
            ("65535.65535.65535", "65535.65535.65535"),
        ] {
            assert_eq!(
                printed.parse::<JailerVersion>().unwrap().to_string(),
                expected,
                "{printed:?}"
            );
        }
    }

    #[test]
    fn anything_else_is_no_version() {
        for printed in [
            "",
            "\n",
            "Jailer",
            "Jailer v",
            "Jailer v1",
            "v1.2",
            "1.2.3.4",
            "1.2.x",
            "1..3",
            "-1.2.3",
            "+1.2.3",
            "1.2.65536",
            "01.2.3",
            "1.2.3 4",
            "1.2.3-a b",
            "vv1.2.3",
            "\nJailer v1.2.3",
            "Jailer: command not found",
            "1.2.³",
        ] {
            let error = printed.parse::<JailerVersion>().unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::Version, printed));
        }
    }

    #[test]
    fn order_is_that_of_publication() {
        let order =
            ["0.25.2", "1.0.0-dev", "1.0.0", "1.9.1", "1.10.0-dev", "1.10.0", "1.10.1", "2.0.0"];
        let order = order.map(|version| version.parse::<JailerVersion>().unwrap());
        assert!(order.is_sorted_by(|a, b| a < b), "{order:?}");
    }
}

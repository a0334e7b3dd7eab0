//! One component of a path.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};

/// One component of a path: 1 to 255 bytes, no `/`, no NUL, not `.` or `..`.
///
/// Any other byte is allowed. Each file that this crate writes is named by one component below a held directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(OsString);

impl Name {
    /// Longest name in bytes, `NAME_MAX`.
    pub const MAX_BYTES: usize = 255;

    fn new(name: OsString) -> Result<Self> {
        let bytes = name.as_bytes();
        let because = match bytes {
            [] => "it is empty",
            b"." | b".." => "`.` and `..` name no entry",
            _ if bytes.contains(&b'/') => "it contains a '/'",
            _ if bytes.contains(&0) => "it contains a NUL",
            _ if bytes.len() > Self::MAX_BYTES => "it is longer than 255 bytes",
            _ => return Ok(Self(name)),
        };
        Err(Error::new(ErrorKind::InvalidInput, "use as a file name", name).because(because))
    }

    /// Returns the name.
    #[must_use]
    pub fn as_os_str(&self) -> &OsStr {
        &self.0
    }

    /// Returns a name that is UTF-8.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        self.0.to_str()
    }
}

impl TryFrom<&OsStr> for Name {
    type Error = Error;

    fn try_from(name: &OsStr) -> Result<Self> {
        Self::new(name.to_owned())
    }
}

impl TryFrom<OsString> for Name {
    type Error = Error;

    fn try_from(name: OsString) -> Result<Self> {
        Self::new(name)
    }
}

impl TryFrom<&str> for Name {
    type Error = Error;

    fn try_from(name: &str) -> Result<Self> {
        Self::new(name.into())
    }
}

impl TryFrom<String> for Name {
    type Error = Error;

    fn try_from(name: String) -> Result<Self> {
        Self::new(name.into())
    }
}

impl AsRef<OsStr> for Name {
    fn as_ref(&self) -> &OsStr {
        &self.0
    }
}

impl AsRef<Path> for Name {
    fn as_ref(&self) -> &Path {
        Path::new(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::text::Escaped(Path::new(&self.0)).fmt(f)
    }
}

/// As text without loss: a byte that is not printable UTF-8 becomes `\xNN`.
#[cfg(feature = "serde")]
impl serde::Serialize for Name {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(&crate::text::encode(self.0.as_bytes()))
    }
}

/// From text, checked like any other.
#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        use std::os::unix::ffi::OsStringExt as _;

        use serde::de::Error as _;
        let text = <String as serde::Deserialize>::deserialize(deserializer)?;
        let bytes = crate::text::decode(&text)
            .ok_or_else(|| D::Error::custom("a stray backslash in a file name"))?;
        Self::new(OsString::from_vec(bytes)).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_component() {
        let longest = "a".repeat(255);
        for good in ["a", "...", " ", "-h", "é", "a\nb", longest.as_str()] {
            assert_eq!(Name::try_from(good).unwrap().as_str(), Some(good));
        }
        let too_long = "a".repeat(256);
        for bad in ["", ".", "..", "/", "a/b", "../x", "a\0b", too_long.as_str()] {
            let error = Name::try_from(bad).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{bad:?}");
        }
        assert!(Name::try_from(OsStr::from_bytes(b"\xff\xfe")).unwrap().as_str().is_none());
    }
}

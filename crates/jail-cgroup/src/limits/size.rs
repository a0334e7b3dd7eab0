//! Sizes in bytes.

use std::fmt;
use std::str::FromStr;

use crate::error::{Error, ErrorKind};

/// Number of bytes.
///
/// ```
/// # use jail_cgroup::ByteSize;
/// assert_eq!(ByteSize::mib(512).as_bytes(), 536_870_912);
/// assert_eq!(ByteSize::mib(512).to_string(), "512 MiB");
/// assert_eq!(ByteSize::bytes(1000).to_string(), "1000 B");
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(transparent))]
pub struct ByteSize(u64);

impl ByteSize {
    /// Returns `n` bytes.
    #[must_use]
    pub const fn bytes(n: u64) -> Self {
        Self(n)
    }

    /// Returns `n` times 1024 bytes, at most `u64::MAX` bytes.
    #[must_use]
    pub const fn kib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 10))
    }

    /// Returns `n` times 1024² bytes, at most `u64::MAX` bytes.
    #[must_use]
    pub const fn mib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 20))
    }

    /// Returns `n` times 1024³ bytes, at most `u64::MAX` bytes.
    #[must_use]
    pub const fn gib(n: u64) -> Self {
        Self(n.saturating_mul(1 << 30))
    }

    /// Returns the number of bytes.
    #[must_use]
    pub const fn as_bytes(self) -> u64 {
        self.0
    }
}

/// The exact size, in the largest binary unit that divides the number.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = |shift: u32| self.0 != 0 && self.0.trailing_zeros() >= shift;
        let (shift, name) = match () {
            () if unit(30) => (30, "GiB"),
            () if unit(20) => (20, "MiB"),
            () if unit(10) => (10, "KiB"),
            () => (0, "B"),
        };
        write!(f, "{} {name}", self.0 >> shift)
    }
}

impl FromStr for ByteSize {
    type Err = Error;

    /// Parses a number with the unit `B`, `KiB`, `MiB` or `GiB`, with or without a space, or a number of bytes.
    fn from_str(text: &str) -> Result<Self, Error> {
        let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let shift = match unit.strip_prefix(' ').unwrap_or(unit) {
            "" if unit.is_empty() => 0,
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => 64,
        };
        let bytes = number.parse::<u64>().ok().zip(1_u64.checked_shl(shift));
        let bytes = bytes.and_then(|(number, unit)| number.checked_mul(unit));
        bytes.map(Self).ok_or_else(|| {
            Error::new(ErrorKind::InvalidInput, format!("parse the size {text:?}"))
                .because("a size is a number of bytes below 2^64")
                .hinted("Use a form such as `512 MiB`, `1GiB` or `4096`.")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_print_exactly() {
        let cases = [
            (ByteSize::bytes(0), "0 B"),
            (ByteSize::kib(1), "1 KiB"),
            (ByteSize::bytes(1025), "1025 B"),
            (ByteSize::kib(1536), "1536 KiB"),
            (ByteSize::gib(2), "2 GiB"),
            (ByteSize::gib(u64::MAX), "18446744073709551615 B"),
        ];
        for (size, text) in cases {
            assert_eq!(size.to_string(), text);
            assert_eq!(text.parse::<ByteSize>().unwrap(), size);
        }
    }

    #[test]
    fn only_whole_sizes_are_parsed() {
        assert_eq!("512MiB".parse::<ByteSize>().unwrap(), ByteSize::mib(512));
        assert_eq!("4096".parse::<ByteSize>().unwrap(), ByteSize::bytes(4096));
        let bad =
            ["", " ", "1 ", "-1", "+1", "1.5 GiB", "1  MiB", "1 MB", "MiB", "17179869184 GiB"];
        for text in bad {
            let error = text.parse::<ByteSize>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{text}");
        }
    }
}

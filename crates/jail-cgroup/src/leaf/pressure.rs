//! Pressure stall information (Documentation/accounting/psi.rst).

use std::time::Duration;

use crate::leaf::keyed;

/// Pressure on a resource: time in which tasks of a group waited.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Pressure {
    /// Time in which at least one task waited.
    pub some: Stall,
    /// Time in which all tasks waited at once; `None` on kernels without it.
    pub full: Option<Stall>,
}

/// Shares of time lost, and the sum.
#[derive(Debug, Clone, Copy, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Stall {
    /// Share of the last 10 seconds, in percent.
    pub avg10: f32,
    /// Share of the last minute, in percent.
    pub avg60: f32,
    /// Share of the last five minutes, in percent.
    pub avg300: f32,
    /// Sum since the group was made.
    pub total: Duration,
}

impl Pressure {
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let stall = |kind: &str| keyed::lines(text).find_map(|line| Stall::parse(line, kind));
        Some(Self { some: stall("some")?, full: stall("full") })
    }
}

impl Stall {
    fn parse(line: &[u8], kind: &str) -> Option<Self> {
        let fields = line.strip_prefix(kind.as_bytes())?.strip_prefix(b" ")?;
        Some(Self {
            avg10: keyed::field(fields, "avg10")?,
            avg60: keyed::field(fields, "avg60")?,
            avg300: keyed::field(fields, "avg300")?,
            total: Duration::from_micros(keyed::field(fields, "total")?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_parsed() {
        let text = b"some avg10=1.53 avg60=0.29 avg300=0.06 total=123456\n\
            full avg10=0.00 avg60=0.00 avg300=0.00 total=7\n";
        let pressure = Pressure::parse(text).unwrap();
        assert_eq!(pressure.some.avg10, 1.53);
        assert_eq!(pressure.some.total, Duration::from_micros(123_456));
        assert_eq!(pressure.full.unwrap().total, Duration::from_micros(7));
        let old = Pressure::parse(b"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n").unwrap();
        assert_eq!(old.full, None);
        assert_eq!(Pressure::parse(b"full avg10=0.00\n"), None);
    }
}

//! Sets of CPUs or memory nodes.

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind, Result};

/// Longest text that is read as a list, in bytes: no list of the kernel's is longer than a page.
const TEXT_MAX: usize = 64 << 10;
/// Most bytes of a refused text that an error repeats.
const SHOWN_MAX: usize = 100;

/// Set of CPUs or of memory nodes, in the kernel's list format (cpuset(7)): `0-3,8`.
///
/// ```
/// # use jail_cgroup::CpuSet;
/// let set: CpuSet = "2,0-1,7".parse()?;
/// assert_eq!(set.to_string(), "0-2,7");
/// assert_eq!(set, CpuSet::from_iter([0, 1, 2, 7]));
/// # Ok::<(), jail_cgroup::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct CpuSet {
    /// First and last id of each range: ascending, with a gap between two ranges.
    ranges: Vec<(u32, u32)>,
}

impl CpuSet {
    /// Returns true if the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Returns true if `id` is in the set.
    #[must_use]
    pub fn contains(&self, id: u32) -> bool {
        self.ranges.iter().any(|&(first, last)| (first..=last).contains(&id))
    }

    /// Returns true if `other` contains the whole set.
    #[must_use]
    pub fn is_subset(&self, other: &Self) -> bool {
        self.ranges.iter().all(|&(first, last)| {
            other.ranges.iter().any(|&(begin, end)| begin <= first && last <= end)
        })
    }

    /// Returns the number of ids.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|&(first, last)| u64::from(last - first) + 1).sum()
    }

    fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        ranges.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(ranges.len());
        for (first, last) in ranges {
            match merged.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => merged.push((first, last)),
            }
        }
        Self { ranges: merged }
    }
}

impl FromIterator<u32> for CpuSet {
    fn from_iter<I: IntoIterator<Item = u32>>(ids: I) -> Self {
        Self::from_ranges(ids.into_iter().map(|id| (id, id)).collect())
    }
}

/// Parses the kernel's list format. The empty text is the empty set; more than 64 KiB are refused.
impl FromStr for CpuSet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            // `u32::from_str` takes a sign, the kernel does not.
            let number =
                |digits: &str| digits.parse().ok().filter(|_: &u32| !digits.starts_with('+'));
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some((first, last))
        };
        let text = text.trim();
        if text.is_empty() {
            return Ok(Self::default());
        }
        let whole = Some(text).filter(|text| text.len() <= TEXT_MAX);
        match whole.and_then(|text| text.split(',').map(range).collect()) {
            Some(ranges) => Ok(Self::from_ranges(ranges)),
            None => {
                let shown: String = text.chars().take(SHOWN_MAX).collect();
                Err(Error::new(ErrorKind::InvalidInput, format!("read the list {shown:?}"))
                    .because("the list is malformed, or longer than 64 KiB")
                    .hinted("Give ids and ranges, such as 0-3,8."))
            }
        }
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{first}")?;
            if first != last {
                write!(f, "-{last}")?;
            }
        }
        Ok(())
    }
}

impl TryFrom<String> for CpuSet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<CpuSet> for String {
    fn from(set: CpuSet) -> Self {
        set.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn long_lists_are_refused() {
        let list = "1,".repeat(TEXT_MAX / 2) + "1";
        let error = list.parse::<CpuSet>().unwrap_err();
        assert!(error.to_string().len() < 300, "{}", error.to_string().len());
    }

    #[test]
    fn lists_are_the_kernels() {
        let cases =
            [("", ""), ("0\n", "0"), ("0-3", "0-3"), ("3,2,1", "1-3"), ("0-1,1-4,8", "0-4,8")];
        for (text, canonical) in cases {
            assert_eq!(text.parse::<CpuSet>().unwrap().to_string(), canonical);
        }
        for text in ["a", "1-", "-1", "3-1", "1,,2", "+1", "1 2", "0-3:1/2", "4294967296"] {
            let error = text.parse::<CpuSet>().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains(text), "{error}");
        }
    }

    #[test]
    fn the_largest_range_is_cheap() {
        let all: CpuSet = "0-4294967295".parse().unwrap();
        assert_eq!(all.len(), 1 << 32);
        assert!(all.contains(u32::MAX));
        assert!("7,4294967295".parse::<CpuSet>().unwrap().is_subset(&all));
        assert!(!all.is_subset(&"0-7".parse().unwrap()));
    }

    proptest! {
        #[test]
        fn sets_round_trip(ids in proptest::collection::btree_set(0_u32..200, 0..40)) {
            let set = CpuSet::from_iter(ids.iter().copied());
            prop_assert_eq!(&set.to_string().parse::<CpuSet>().unwrap(), &set);
            let held: BTreeSet<u32> = (0..200).filter(|id| set.contains(*id)).collect();
            prop_assert_eq!(u64::try_from(ids.len()).unwrap(), set.len());
            prop_assert_eq!(held, ids);
        }

        #[test]
        fn no_text_panics(text in ".*") {
            if let Ok(set) = text.parse::<CpuSet>() {
                prop_assert_eq!(set.to_string().parse::<CpuSet>().unwrap(), set);
            }
        }
    }
}

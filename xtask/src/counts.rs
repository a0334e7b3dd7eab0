//! The results of tests: counts and skips, parsed from the output of libtest.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// A selection of tests, and options of the run.
#[derive(Debug, Clone, Default, Serialize, Deserialize, clap::Args)]
pub(crate) struct Selection {
    /// Only the tests of this package (repeatable)
    #[arg(short, long = "package", value_name = "NAME")]
    pub(crate) packages: Vec<String>,
    /// Only tests whose names contain one of these
    pub(crate) filters: Vec<String>,
    /// Run more rounds and more cases (`MICROVM_TEST_LONG=1`)
    #[arg(long)]
    pub(crate) long: bool,
    /// Count a skipped test as failed
    #[arg(long)]
    pub(crate) require: bool,
}

/// The numbers of passed, failed and skipped tests. A skipped test is never counted as passed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counts {
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    pub(crate) skipped: u64,
}

impl Counts {
    /// Returns the counts of a single check, such as the format.
    pub(crate) fn check(passed: bool) -> Self {
        Self { passed: passed.into(), failed: (!passed).into(), skipped: 0 }
    }
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.skipped += other.skipped;
    }
}

impl fmt::Display for Counts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped)
    }
}

/// The result of a run of tests.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Summary {
    pub(crate) counts: Counts,
    /// The skipped tests, each as `<test>: <why>`.
    pub(crate) skips: BTreeSet<String>,
    /// The lines of tests about the binaries in use and the results of races (`using: …`, `race: …`).
    pub(crate) using: BTreeSet<String>,
    /// Problems other than failed tests, such as a mount left on the host.
    pub(crate) problems: Vec<String>,
}

impl Summary {
    /// Returns the summary of a single check.
    pub(crate) fn check(passed: bool) -> Self {
        Self { counts: Counts::check(passed), ..Self::default() }
    }

    /// Returns true if a test ran, no test failed and there is no problem.
    pub(crate) fn good(&self) -> bool {
        self.counts.failed == 0 && self.problems.is_empty() && self.counts != Counts::default()
    }

    /// Returns `ok`, `skipped` or `FAILED`, for the tables.
    pub(crate) fn verdict(&self) -> &'static str {
        let Counts { passed, failed, skipped } = self.counts;
        match () {
            () if failed == 0 && passed == 0 && skipped > 0 && self.problems.is_empty() => {
                "skipped"
            }
            () if self.good() => "ok",
            () => "FAILED",
        }
    }

    /// Counts the tests of `lines` as skipped. libtest counted a skipped test as passed.
    pub(crate) fn skip(&mut self, lines: impl IntoIterator<Item = String>) {
        let lines: BTreeSet<_> = lines.into_iter().filter(|line| !line.trim().is_empty()).collect();
        let tests: BTreeSet<_> =
            lines.iter().map(|line| line.split(": ").next().unwrap_or(line)).collect();
        let skipped = u64::try_from(tests.len()).unwrap_or(u64::MAX);
        self.counts.skipped += skipped;
        self.counts.passed = self.counts.passed.saturating_sub(skipped);
        self.skips.extend(lines);
    }

    /// Counts every skip as a failure, for `--require`.
    pub(crate) fn require(&mut self) {
        self.counts.failed += std::mem::take(&mut self.counts.skipped);
        self.problems.extend(
            std::mem::take(&mut self.skips).into_iter().map(|skip| format!("skipped: {skip}")),
        );
    }

    /// Returns the lines to print besides the counts: binaries, skips and problems.
    pub(crate) fn remarks(&self) -> impl Iterator<Item = String> {
        let using = self.using.iter().cloned();
        let skips = self.skips.iter().map(|skip| format!("skipped: {skip}"));
        using.chain(skips).chain(self.problems.iter().map(|problem| format!("problem: {problem}")))
    }
}

impl AddAssign for Summary {
    fn add_assign(&mut self, other: Self) {
        self.counts += other.counts;
        self.skips.extend(other.skips);
        self.using.extend(other.using);
        self.problems.extend(other.problems);
    }
}

/// A line of libtest's output.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// `test <name> ... ok`
    Passed(&'a str),
    /// `test <name> ... FAILED`
    Failed(&'a str),
    /// `test <name> ... ignored, <why>`
    Ignored(&'a str, &'a str),
    /// `test result: …`
    Result {
        /// Counts of one test binary.
        passed: u64,
        failed: u64,
    },
    /// `using: …`, the binaries of a launch test, or `race: …`, the result of a race.
    Using(&'a str),
}

impl<'a> Line<'a> {
    pub(crate) fn parse(line: &'a str) -> Option<Self> {
        if let Some(result) = line.strip_prefix("test result: ") {
            let (_, counts) = result.split_once(". ")?;
            let count = |what: &str| {
                counts.split("; ").find_map(|part| part.strip_suffix(what)?.trim().parse().ok())
            };
            return Some(Self::Result { passed: count(" passed")?, failed: count(" failed")? });
        }
        if line.starts_with("using: ") || line.starts_with("race: ") {
            return Some(Self::Using(line));
        }
        let (name, end) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
        match end {
            "ok" => Some(Self::Passed(name)),
            "FAILED" => Some(Self::Failed(name)),
            _ => {
                let why = end.strip_prefix("ignored")?;
                Some(Self::Ignored(
                    name,
                    why.strip_prefix(", ").unwrap_or("ignored without a reason"),
                ))
            }
        }
    }
}

/// Returns libtest's part about failures; if that is missing, the last 40 lines.
pub(crate) fn failures(output: &str) -> &str {
    let from = output
        .find("\nfailures:\n")
        .or_else(|| output.rmatch_indices('\n').nth(40).map(|(at, _)| at));
    output.get(from.unwrap_or(0)..).unwrap_or(output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libtest_lines_are_parsed() {
        assert_eq!(Line::parse("test a::b ... ok"), Some(Line::Passed("a::b")));
        assert_eq!(Line::parse("test a ... FAILED"), Some(Line::Failed("a")));
        assert_eq!(
            Line::parse("test a ... ignored, needs root: x"),
            Some(Line::Ignored("a", "needs root: x"))
        );
        assert_eq!(
            Line::parse(
                "test result: FAILED. 12 passed; 1 failed; 3 ignored; 0 measured; 0 filtered out; finished in 0.00s"
            ),
            Some(Line::Result { passed: 12, failed: 1 })
        );
        assert_eq!(Line::parse("test a has been running for over 60 seconds"), None);
        assert_eq!(Line::parse("testing ... ok"), None);
    }

    #[test]
    fn skipped_is_not_passed() {
        let mut summary =
            Summary { counts: Counts { passed: 3, failed: 0, skipped: 0 }, ..Summary::default() };
        // A test that skips two parts counts as one skipped test.
        summary.skip([
            "a: no xfs".to_owned(),
            "a: no btrfs".to_owned(),
            "b: no KVM: why".to_owned(),
        ]);
        assert_eq!(summary.counts.to_string(), "1 passed, 0 failed, 2 skipped");
        assert!(summary.good());
        summary.require();
        assert_eq!(summary.counts.to_string(), "1 passed, 2 failed, 0 skipped");
        assert!(!summary.good());
    }

    #[test]
    fn an_empty_run_fails() {
        assert!(!Summary::default().good());
    }
}

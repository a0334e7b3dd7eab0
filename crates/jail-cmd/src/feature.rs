//! The differences between releases: [`Feature`].

use std::fmt;

use crate::{Error, ErrorKind, JailerVersion};

/// Something that some releases understand or do and others do not.
///
/// One row a variant, found by comparing the sources of all releases from 1.0.0 to 1.16.1. The
/// jailer's own arguments are the same in all of them.
///
/// ```
/// use jail_cmd::{Feature, JailerVersion};
///
/// let release = JailerVersion::new(1, 14, 0);
/// assert!(!release.supports(Feature::ChecksExecCopy));
/// assert_eq!(Feature::ChecksExecCopy.known_to(), "1.13.2 until 1.14.0, and from 1.14.1 on");
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
#[non_exhaustive]
pub enum Feature {
    /// The jailer accepts an exec file of any name, not only names that contain `firecracker`.
    AnyExecName,
    /// With cgroup v2 and no `--cgroup`, the jailer joins `--parent-cgroup`, where that exists.
    JoinsParentCgroup,
    /// The jailer writes `<exec name>.pid` without `--new-pid-ns` too.
    PidFileAlways,
    /// `-h` anywhere before `--` prints the help and exits 0.
    ShortHelp,
    /// The jailer makes `/dev/userfaultfd` if the host has that device.
    UserfaultfdNode,
    /// With `--daemonize`, the VMM is no session leader and can get no controlling terminal.
    DoubleFork,
    /// With `--new-pid-ns`, a jailer that leads a session gives Firecracker a new session, so that
    /// Firecracker gets no SIGHUP when the jailer exits.
    OwnSession,
    /// A failed launch prints an error message, then `Error: ` and the debug form of that error, and
    /// exits 1. Older releases print a panic message and end by SIGABRT.
    PlainErrors,
    /// The jailer refuses a symbolic or hard link in the place of the exec copy; before, it wrote
    /// through it as root (CVE-2026-1386).
    ChecksExecCopy,
    /// The jailer follows a symbolic link to the network namespace.
    FollowsNetnsLink,
    /// Firecracker's `--mmds-size-limit`.
    MmdsSizeLimit,
    /// Firecracker's `--metrics-path`.
    MetricsPath,
    /// Firecracker's `--level Off` and `--level Trace`.
    LevelOffAndTrace,
    /// Firecracker's `--module`.
    LogModule,
    /// Firecracker's `--enable-pci`.
    EnablePci,
}

impl Feature {
    /// Every feature.
    pub const ALL: [Self; 15] = [
        Self::AnyExecName,
        Self::JoinsParentCgroup,
        Self::PidFileAlways,
        Self::ShortHelp,
        Self::UserfaultfdNode,
        Self::DoubleFork,
        Self::OwnSession,
        Self::PlainErrors,
        Self::ChecksExecCopy,
        Self::FollowsNetnsLink,
        Self::MmdsSizeLimit,
        Self::MetricsPath,
        Self::LevelOffAndTrace,
        Self::LogModule,
        Self::EnablePci,
    ];

    /// Returns the releases that have the feature, as text for a person.
    #[must_use]
    pub fn known_to(self) -> String {
        self.releases().iter().map(Span::to_string).collect::<Vec<_>>().join(", and ")
    }

    pub(crate) fn releases(self) -> &'static [Span] {
        match self {
            Self::AnyExecName => {
                const { &[Span::until((1, 0, 0), (1, 2, 0)), Span::from((1, 13, 0))] }
            }
            Self::JoinsParentCgroup | Self::DoubleFork | Self::LogModule => {
                const { &[Span::from((1, 6, 0))] }
            }
            Self::PidFileAlways => const { &[Span::from((1, 7, 0))] },
            Self::ShortHelp => const { &[Span::from((1, 10, 0))] },
            Self::UserfaultfdNode | Self::LevelOffAndTrace => const { &[Span::from((1, 5, 0))] },
            Self::OwnSession => const { &[Span::from((1, 11, 0))] },
            Self::PlainErrors | Self::EnablePci => const { &[Span::from((1, 13, 0))] },
            Self::ChecksExecCopy => {
                const { &[Span::until((1, 13, 2), (1, 14, 0)), Span::from((1, 14, 1))] }
            }
            Self::FollowsNetnsLink => {
                const { &[Span::until((1, 0, 0), (1, 16, 0)), Span::from((1, 16, 1))] }
            }
            Self::MmdsSizeLimit => const { &[Span::from((1, 1, 0))] },
            Self::MetricsPath => const { &[Span::from((1, 2, 0))] },
        }
    }
}

impl JailerVersion {
    /// Returns true if this release has the feature. A pre-release has the features of the release
    /// before it.
    #[must_use]
    pub fn supports(self, feature: Feature) -> bool {
        feature.releases().iter().any(|span| span.contains(self))
    }

    /// Refuses an argument that takes a feature this release does not have.
    pub(crate) fn require(self, feature: Feature, argument: &str) -> Result<(), Error> {
        if self.supports(feature) {
            return Ok(());
        }
        let reason =
            format!("release {self} does not take it; known to releases {}", feature.known_to());
        Err(Error::new(ErrorKind::UnsupportedByRelease, argument, reason))
    }
}

/// A range of releases: from one release on, and before another if there is an end.
#[derive(Debug)]
pub(crate) struct Span {
    from: JailerVersion,
    until: Option<JailerVersion>,
}

impl Span {
    const fn from((major, minor, patch): (u16, u16, u16)) -> Self {
        Self { from: JailerVersion::new(major, minor, patch), until: None }
    }

    const fn until(from: (u16, u16, u16), (major, minor, patch): (u16, u16, u16)) -> Self {
        Self { until: Some(JailerVersion::new(major, minor, patch)), ..Self::from(from) }
    }

    pub(crate) fn contains(&self, release: JailerVersion) -> bool {
        self.from <= release && self.until.is_none_or(|until| release < until)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.until {
            Some(until) => write!(f, "{} until {until}", self.from),
            None => write!(f, "from {} on", self.from),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For each row of the table: the last release without the feature, and the first release with
    /// the feature.
    #[test]
    fn every_change_has_its_release() {
        use Feature as F;
        for (feature, without, with) in [
            (F::AnyExecName, (1, 12, 1), (1, 13, 0)),
            (F::AnyExecName, (1, 2, 0), (1, 1, 4)),
            (F::JoinsParentCgroup, (1, 5, 1), (1, 6, 0)),
            (F::PidFileAlways, (1, 6, 0), (1, 7, 0)),
            (F::ShortHelp, (1, 9, 1), (1, 10, 0)),
            (F::UserfaultfdNode, (1, 4, 1), (1, 5, 0)),
            (F::DoubleFork, (1, 5, 1), (1, 6, 0)),
            (F::OwnSession, (1, 10, 1), (1, 11, 0)),
            (F::PlainErrors, (1, 12, 1), (1, 13, 0)),
            (F::ChecksExecCopy, (1, 13, 1), (1, 13, 2)),
            (F::ChecksExecCopy, (1, 14, 0), (1, 14, 1)),
            (F::FollowsNetnsLink, (1, 16, 0), (1, 15, 1)),
            (F::FollowsNetnsLink, (1, 16, 0), (1, 16, 1)),
            (F::MmdsSizeLimit, (1, 0, 2), (1, 1, 0)),
            (F::MetricsPath, (1, 1, 4), (1, 2, 0)),
            (F::LevelOffAndTrace, (1, 4, 1), (1, 5, 0)),
            (F::LogModule, (1, 5, 1), (1, 6, 0)),
            (F::EnablePci, (1, 12, 1), (1, 13, 0)),
        ] {
            let release = |(major, minor, patch)| JailerVersion::new(major, minor, patch);
            assert!(!release(without).supports(feature), "{feature:?} in {without:?}");
            assert!(release(with).supports(feature), "{feature:?} in {with:?}");
        }
    }

    #[test]
    fn newest_has_every_feature() {
        for feature in Feature::ALL {
            assert!(JailerVersion::NEWEST.supports(feature), "{feature:?}");
            assert!(!JailerVersion::new(0, 25, 2).supports(feature), "{feature:?}");
        }
    }

    #[test]
    fn pre_releases_lack_new_features() {
        let before: JailerVersion = "1.13.0-dev".parse().unwrap();
        assert!(!before.supports(Feature::EnablePci));
        assert!(before.supports(Feature::JoinsParentCgroup));
    }
}

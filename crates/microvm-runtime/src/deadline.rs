//! Points in time that a wait ends at: [`Deadline`].

use std::time::{Duration, Instant};

/// The longest wait for a killed VMM, and for the processes of its jail, to exit.
pub(crate) const KILL_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest wait for the killed processes of a failed launch to exit.
pub(crate) const FAILED_LAUNCH_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait for a VMM to exit that is about to: between its last sign of life and the kernel's report.
pub(crate) const EXIT_TIMEOUT: Duration = Duration::from_secs(1);

/// A point in time that a wait ends at, or never.
///
/// A time that cannot be represented (`Duration::MAX` from now) is never, so no sum of durations panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline(Option<Instant>);

impl Deadline {
    /// A wait without an end.
    pub(crate) const NEVER: Self = Self(None);

    /// The time `timeout` from now.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self(Instant::now().checked_add(timeout))
    }

    /// A deadline that has passed: a look without a wait.
    pub(crate) fn now() -> Self {
        Self(Some(Instant::now()))
    }

    /// The earlier of two deadlines.
    pub(crate) fn min(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(one), Some(two)) => Self(Some(one.min(two))),
            (one, two) => Self(one.or(two)),
        }
    }

    /// The time that is left; `None` if the wait has no end.
    pub(crate) fn left(self) -> Option<Duration> {
        self.0.map(|end| end.saturating_duration_since(Instant::now()))
    }

    /// Returns true if the deadline has passed.
    pub(crate) fn has_passed(self) -> bool {
        self.left().is_some_and(|left| left.is_zero())
    }
}

impl From<Instant> for Deadline {
    fn from(end: Instant) -> Self {
        Self(Some(end))
    }
}

impl From<Option<Instant>> for Deadline {
    fn from(end: Option<Instant>) -> Self {
        Self(end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endless_durations_never_end() {
        for timeout in [Duration::MAX, Duration::from_secs(u64::MAX)] {
            let deadline = Deadline::after(timeout);
            assert_eq!((deadline, deadline.left()), (Deadline::NEVER, None));
            assert!(!deadline.has_passed());
        }
        assert!(Deadline::now().has_passed());
    }

    #[test]
    fn the_earlier_deadline_wins() {
        let soon = Deadline::after(Duration::from_secs(1));
        let late = Deadline::after(Duration::from_secs(2));
        assert_eq!((soon.min(late), late.min(soon)), (soon, soon));
        assert_eq!((soon.min(Deadline::NEVER), Deadline::NEVER.min(soon)), (soon, soon));
    }
}

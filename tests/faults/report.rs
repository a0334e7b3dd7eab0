//! What came of it, phase by phase.

use serde::Serialize;

use crate::tracer::Call;

/// The whole of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// In the order of the launcher's life.
    pub phases: Vec<PhaseCount>,
    /// What must not be.
    pub violations: Vec<Violation>,
}

/// The figures of one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PhaseCount {
    /// Its name.
    pub phase: String,
    /// System calls that the recorded life made in it.
    pub calls: u64,
    /// Calls that were made to fail.
    pub faults: u64,
    /// Faults that the launcher told as an error, and then got over.
    pub told: u64,
    /// Faults that it took in its stride.
    pub succeeded: u64,
    /// Kills before a call.
    pub kills: u64,
    /// Kills that another launcher recovered from.
    pub recovered: u64,
    /// Blows whose call was not made: a loop that waits does not always turn as often.
    pub missed: u64,
    /// Blows after which something was not as it must be.
    pub violations: u64,
}

/// A blow after which something was not as it must be.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// The call.
    pub call: Call,
    /// Its name, and what was done: `openat2 fails with EIO`.
    pub blow: String,
    /// What was wrong.
    pub what: String,
}

impl Report {
    pub(crate) fn phase(&mut self, name: &str) -> &mut PhaseCount {
        let at = match self.phases.iter().position(|phase| phase.phase == name) {
            Some(at) => at,
            None => {
                self.phases.push(PhaseCount { phase: name.to_owned(), ..PhaseCount::default() });
                self.phases.len() - 1
            }
        };
        &mut self.phases[at]
    }

    pub(crate) fn violated(&mut self, call: &Call, blow: &str, what: &str) {
        self.phase(&call.phase).violations += 1;
        let (blow, what) = (blow.to_owned(), what.to_owned());
        self.violations.push(Violation { call: call.clone(), blow, what });
    }

    /// All phases together.
    #[must_use]
    pub fn total(&self) -> PhaseCount {
        let mut total = PhaseCount { phase: "all".to_owned(), ..PhaseCount::default() };
        for phase in &self.phases {
            total.calls += phase.calls;
            total.faults += phase.faults;
            total.told += phase.told;
            total.succeeded += phase.succeeded;
            total.kills += phase.kills;
            total.recovered += phase.recovered;
            total.missed += phase.missed;
            total.violations += phase.violations;
        }
        total
    }
}

impl std::fmt::Display for Violation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Call { phase, thread, number, nth, .. } = &self.call;
        let Self { blow, what, .. } = self;
        write!(f, "{phase}, thread {thread}, {nth} of system call {number}: {blow}: {what}")
    }
}

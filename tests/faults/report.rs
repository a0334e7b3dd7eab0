//! The results, phase by phase.

use serde::Serialize;

use crate::tracer::Call;

/// The whole of a run.
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Report {
    /// In the order of the launcher's life.
    pub phases: Vec<PhaseCount>,
    /// The violations of the rules.
    pub violations: Vec<Violation>,
}

/// The figures of one phase.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct PhaseCount {
    /// The phase's name.
    pub phase: String,
    /// System calls in this phase of the recorded run.
    pub calls: u64,
    /// Calls that were made to fail.
    pub faults: u64,
    /// Faults that the launcher reported as an error and then recovered from.
    pub reported: u64,
    /// Faults after which the launcher succeeded.
    pub succeeded: u64,
    /// Kills before a call.
    pub kills: u64,
    /// Kills that another launcher recovered from.
    pub recovered: u64,
    /// Injections into a call that was never made: the number of rounds of a waiting loop varies.
    pub missed: u64,
    /// Injections that led to a violation.
    pub violations: u64,
}

/// An injection that led to a violation.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct Violation {
    /// The call.
    pub call: Call,
    /// The call's name and the injection: `openat2 fails with EIO`.
    pub injection: String,
    /// The violated rule.
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

    pub(crate) fn violated(&mut self, call: &Call, injection: &str, what: &str) {
        self.phase(&call.phase).violations += 1;
        let (injection, what) = (injection.to_owned(), what.to_owned());
        self.violations.push(Violation { call: call.clone(), injection, what });
    }

    /// All phases together.
    #[must_use]
    pub fn total(&self) -> PhaseCount {
        let mut total = PhaseCount { phase: "all".to_owned(), ..PhaseCount::default() };
        for phase in &self.phases {
            total.calls += phase.calls;
            total.faults += phase.faults;
            total.reported += phase.reported;
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
        let Self { injection, what, .. } = self;
        write!(f, "{phase}, thread {thread}, {nth} of system call {number}: {injection}: {what}")
    }
}

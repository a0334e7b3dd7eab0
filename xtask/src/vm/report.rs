//! Turns the lines of a guest into a result.

use std::collections::BTreeMap;

use super::machine::{End, Run};
use super::payload::Payload;
use crate::counts::{Counts, Line, Summary, failures};

/// A parser of the guest's lines. The lines of `init.sh` begin with [`MARK`]; all other lines are output of tests.
#[derive(Debug)]
pub(super) struct Report {
    machine: String,
    /// The number of tests of each binary that has not run yet.
    expected: BTreeMap<String, u64>,
    running: Option<Binary>,
    done: bool,
    verdict: Verdict,
}

/// The result of a machine.
#[derive(Debug, Default)]
pub(super) struct Verdict {
    pub(super) summary: Summary,
    /// The output to print for debugging: the output of failed tests, the end of the console.
    pub(super) failures: Vec<String>,
}

/// A running test binary.
#[derive(Debug)]
struct Binary {
    name: String,
    output: String,
    /// The last counts that libtest printed. A test may run another libtest, so the last line counts.
    counted: Option<(u64, u64)>,
    /// The skipped tests, which libtest counts as passed.
    skips: Vec<String>,
}

/// The start of a line of `init.sh`.
const MARK: &str = "##";

impl Report {
    pub(super) fn new(machine: &str, payload: &Payload) -> Self {
        let expected =
            payload.tests.iter().map(|tests| (tests.name.clone(), tests.count)).collect();
        Self {
            machine: machine.to_owned(),
            expected,
            running: None,
            done: false,
            verdict: Verdict::default(),
        }
    }

    /// Parses a line. Returns a text for the progress line, if the line starts new work.
    pub(super) fn line(&mut self, line: &str) -> Option<String> {
        let Some(own) = line.strip_prefix(MARK) else { return self.test_line(line) };
        let (what, rest) = own.split_once(' ').unwrap_or((own, ""));
        match what {
            "ready" => return Some(format!("booted, {rest} s by its clock")),
            "run" => {
                let name = rest.to_owned();
                let output = String::new();
                self.running = Some(Binary { name, output, counted: None, skips: Vec::new() });
                return Some(rest.to_owned());
            }
            "skipped" => match &mut self.running {
                Some(running) => running.skips.push(rest.to_owned()),
                None => self.problem(own),
            },
            "exit" => self.exit(rest),
            "done" => self.done = true,
            // `fault`, `left`, `gone`, or an unknown line.
            _ => self.problem(own),
        }
        None
    }

    fn test_line(&mut self, line: &str) -> Option<String> {
        let running = self.running.as_mut()?;
        running.output.push_str(line);
        running.output.push('\n');
        match Line::parse(line)? {
            Line::Passed(name) => return Some(name.to_owned()),
            Line::Failed(name) => {
                let name = name.to_owned();
                self.problem(&format!("failed: {name}"));
            }
            Line::Result { passed, failed } => running.counted = Some((passed, failed)),
            Line::Using(using) => {
                self.verdict.summary.using.insert(format!("{}: {using}", self.machine));
            }
            Line::Ignored(..) => {}
        }
        None
    }

    /// Records the exit status of the running binary.
    fn exit(&mut self, status: &str) {
        let Some(Binary { name, output, counted, skips }) = self.running.take() else {
            return self.problem(&format!("exit {status}, but no test was running"));
        };
        let Some(expected) = self.expected.remove(&name) else {
            return self.problem(&format!("{name} ran twice, or was not selected"));
        };
        let (passed, failed) = counted.unwrap_or_default();
        let missing = expected.saturating_sub(passed + failed);
        if missing > 0 {
            self.problem(&format!(
                "{name}: exit status {status}, {missing} of {expected} tests did not run"
            ));
        } else if failed > 0 {
            self.problem(&format!("{name}: {failed} of {expected} tests failed"));
        } else if status != "0" {
            self.problem(&format!("{name}: exit status {status}, although no test failed"));
        }
        self.verdict.summary.counts += Counts { passed, failed: failed + missing, skipped: 0 };
        self.verdict.summary.skip(skips);
        if failed + missing > 0 {
            self.verdict.failures.push(format!("{}: {name}\n{}", self.machine, failures(&output)));
        }
    }

    /// Returns the result after the end of the machine.
    pub(super) fn close(mut self, run: &Run) -> Verdict {
        let console = run.console.display();
        if !self.done || !matches!(run.end, End::Exited(status) if status.success()) {
            let at = self.running.as_ref().map_or("no test ran", |binary| &binary.name).to_owned();
            self.problem(&format!(
                "{}, before all tests were done ({at}); console: {console}",
                run.end
            ));
            self.verdict
                .failures
                .push(format!("{}: the end of {console}\n{}", self.machine, run.tail));
        }
        for (name, count) in std::mem::take(&mut self.expected) {
            self.problem(&format!("{name}: {count} tests did not run to the end"));
            self.verdict.summary.counts.failed += count;
        }
        let skips = std::mem::take(&mut self.verdict.summary.skips);
        let machine = &self.machine;
        self.verdict.summary.skips =
            skips.into_iter().map(|skip| format!("{machine}: {skip}")).collect();
        self.verdict
    }

    fn problem(&mut self, what: &str) {
        self.verdict.summary.problems.push(format!("{}: {what}", self.machine));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::ExitStatus;
    use std::time::Duration;

    use super::super::payload::{Program, Tests};
    use super::*;

    const OK: &str = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.1s";

    fn judge(lines: &[&str], end: End) -> Summary {
        let tests = vec![Tests { name: "a".to_owned(), program: Program::Script(""), count: 2 }];
        let mut report = Report::new("v2", &Payload { tests, ..Payload::default() });
        for line in lines {
            report.line(line);
        }
        report.close(&Run { end, console: "console.log".into(), tail: String::new() }).summary
    }

    fn exited(status: i32) -> End {
        End::Exited(ExitStatus::from_raw(status))
    }

    #[test]
    fn a_complete_run_passes() {
        let skip = "##skipped a::one: no KVM";
        let summary = judge(&["##ready 1.5", "##run a", OK, skip, "##exit 0", "##done"], exited(0));
        assert!(summary.good(), "{summary:?}");
        assert_eq!(summary.counts, Counts { passed: 1, failed: 0, skipped: 1 });
        assert_eq!(summary.skips.first().map(String::as_str), Some("v2: a::one: no KVM"));
    }

    #[test]
    fn every_fault_is_a_failure() {
        let failed =
            "test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out";
        let fewer = "test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 1 filtered out";
        let done = ["##exit 0", "##done"];
        let cases: [(&str, &[&str], End); 9] = [
            ("a test fails", &["##run a", failed, "##exit 101", "##done"], exited(0)),
            ("a test does not run", &["##run a", fewer, done[0], done[1]], exited(0)),
            ("no test runs", &["##ready 1", "##done"], exited(0)),
            ("the binary dies", &["##run a", "##exit 139", "##done"], exited(0)),
            (
                "the binary fails after all tests",
                &["##run a", OK, "##exit 101", "##done"],
                exited(0),
            ),
            (
                "a mount is left",
                &["##run a", OK, "##left a: mount /x", done[0], done[1]],
                exited(0),
            ),
            ("the kernel panics", &["##run a", OK, "##exit 0"], exited(0)),
            ("the emulator fails", &["##run a", OK, done[0], done[1]], exited(256)),
            ("the machine hangs", &["##run a"], End::Silent(Duration::from_secs(1))),
        ];
        for (case, lines, end) in cases {
            let summary = judge(lines, end);
            assert!(!summary.good(), "{case}: {summary:?}");
            assert!(!summary.problems.is_empty(), "{case}: no problem is reported");
        }
    }
}

//! Long work says where it is: one line that changes on a terminal, one line now and then elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// How often a log that nobody watches gets a sign of life.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// A step that is under way, on stderr.
#[derive(Debug)]
pub(crate) struct Progress {
    label: String,
    detail: String,
    begun: Instant,
    shown: Instant,
    terminal: bool,
}

impl Progress {
    pub(crate) fn begin(label: impl Into<String>) -> Self {
        let now = Instant::now();
        let terminal = std::io::stderr().is_terminal();
        let progress =
            Self { label: label.into(), detail: String::new(), begun: now, shown: now, terminal };
        progress.show_line();
        progress
    }

    /// Says what is being done now.
    pub(crate) fn detail(&mut self, detail: impl Into<String>) {
        self.detail = detail.into();
        self.tick();
    }

    /// Shows the line again when it is due.
    pub(crate) fn tick(&mut self) {
        let due = if self.terminal { Duration::from_millis(100) } else { SIGN_OF_LIFE };
        if self.shown.elapsed() >= due {
            self.shown = Instant::now();
            if !self.terminal {
                eprintln!("{}: {}: {}", self.label, seconds(self.begun.elapsed()), self.detail);
            }
            self.show_line();
        }
    }

    /// Ends the step with its headline, and returns the time it took.
    pub(crate) fn end(self, outcome: &str) -> Duration {
        let took = self.begun.elapsed();
        self.clear();
        eprintln!("{:<16} {outcome:<8} {}", self.label, seconds(took));
        took
    }

    /// Makes room for other output.
    pub(crate) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }

    fn show_line(&self) {
        if self.terminal {
            let line = format!("{} {}  {}", self.label, seconds(self.begun.elapsed()), self.detail);
            // Cut at a width every terminal has: a wrapped line could not be taken back.
            let line: String = line.chars().take(79).collect();
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        }
    }
}

/// `0.8 s`, `61.0 s`, `12 min 5 s`.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        whole @ 600.. => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

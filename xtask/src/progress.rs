//! The progress of long work: one changing line on a terminal, a line every 30 seconds elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::{Duration, Instant};

/// The interval of progress lines without a terminal.
const SIGN_OF_LIFE: Duration = Duration::from_secs(30);

/// The progress line of a running step, on stderr.
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

    /// Sets the text that describes the current work.
    pub(crate) fn detail(&mut self, detail: impl Into<String>) {
        self.detail = detail.into();
        self.tick();
    }

    /// Prints the line again, if the interval has passed.
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

    /// Prints the outcome of the step, and returns the duration.
    pub(crate) fn end(self, outcome: &str) -> Duration {
        let took = self.begun.elapsed();
        self.clear();
        eprintln!("{:<16} {outcome:<8} {}", self.label, seconds(took));
        took
    }

    /// Clears the line for other output.
    pub(crate) fn clear(&self) {
        if self.terminal {
            eprint!("\r\x1b[2K");
        }
    }

    fn show_line(&self) {
        if self.terminal {
            let line = format!("{} {}  {}", self.label, seconds(self.begun.elapsed()), self.detail);
            // At most 79 columns: a wrapped line cannot be cleared.
            let line: String = line.chars().take(79).collect();
            eprint!("\r\x1b[2K{line}");
            let _ = std::io::stderr().flush();
        }
    }
}

/// Formats a duration: `0.8 s`, `61.0 s`, `12 min 5 s`.
pub(crate) fn seconds(time: Duration) -> String {
    match time.as_secs() {
        whole @ 600.. => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{:.1} s", time.as_secs_f64()),
    }
}

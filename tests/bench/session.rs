//! Contenders, alternating rounds, and the table of the results.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde::Serialize;
use serde_json::json;
use testkit::{Table, interrupt};

/// One way of doing the work; each call is one round and returns the time that counts.
pub(crate) struct Contender<'a> {
    name: String,
    round: Box<dyn FnMut() -> Result<Duration> + 'a>,
}

impl<'a> Contender<'a> {
    pub(crate) fn new(
        name: impl Into<String>,
        round: impl FnMut() -> Result<Duration> + 'a,
    ) -> Self {
        Self { name: name.into(), round: Box::new(round) }
    }
}

/// A contender that ours is compared with, and the bound of the ratio.
pub(crate) struct Rival<'a> {
    contender: Contender<'a>,
    at_most: Option<f64>,
    floor: Option<Floor>,
}

/// A lower bound on the time of the work: the time of the bare calls.
#[derive(Debug, Clone, Copy)]
struct Floor {
    /// The index of the rival that makes the bare calls.
    rival: usize,
    /// The largest ratio of our time to the time of the bare calls.
    at_most: f64,
}

impl<'a> Rival<'a> {
    /// Returns a rival without a bound.
    pub(crate) fn new(
        name: impl Into<String>,
        round: impl FnMut() -> Result<Duration> + 'a,
    ) -> Self {
        Self { contender: Contender::new(name, round), at_most: None, floor: None }
    }

    /// Sets the largest ratio of our time to the rival's time.
    pub(crate) fn at_most(self, ratio: f64) -> Self {
        Self { at_most: Some(ratio), ..self }
    }

    /// Relaxes the bound to `at_most` times the time of the bare calls, if the bound is below that. `rival` is the
    /// index of the bare calls among the rivals. The row shows the relaxed bound.
    pub(crate) fn over_floor(self, rival: usize, at_most: f64) -> Self {
        Self { floor: Some(Floor { rival, at_most }), ..self }
    }
}

/// A running bench with the rows measured so far.
#[derive(Debug, Default)]
pub(crate) struct Session {
    /// The number of rounds, instead of the bench's default.
    rounds: Option<usize>,
    rows: Vec<Row>,
    figures: Vec<Figure>,
    notes: Vec<String>,
}

/// Ours against one rival.
#[derive(Debug, Serialize)]
struct Row {
    work: String,
    rounds: usize,
    ours: String,
    ours_ns: u128,
    rival: String,
    rival_ns: u128,
    /// The median of the rounds' ratios: a slow machine slows both sides of a round.
    ratio: f64,
    /// The bound of the ratio.
    at_most: Option<f64>,
    /// The ratio of the bare calls to the rival.
    floor: Option<f64>,
    /// The bound that replaces `at_most` if the floor makes `at_most` unreachable.
    within_reach: Option<f64>,
    ok: bool,
}

/// A figure without a rival.
#[derive(Debug, Serialize)]
struct Figure {
    what: String,
    value: f64,
    unit: String,
    at_most: Option<f64>,
    ok: bool,
}

impl Session {
    pub(crate) fn new(rounds: Option<usize>) -> Self {
        Self { rounds, ..Self::default() }
    }

    /// Returns the number of rounds: the value of `--rounds`, or else `own`.
    pub(crate) fn rounds(&self, own: usize) -> usize {
        self.rounds.unwrap_or(own).max(1)
    }

    /// Measures `ours` and the rivals in turn, after one round of warm-up. Each round has another order, and every
    /// second round reverses the order, so that no contender always follows the same one.
    pub(crate) fn compare(
        &mut self,
        work: &str,
        rounds: usize,
        ours: Contender<'_>,
        rivals: Vec<Rival<'_>>,
    ) -> Result<()> {
        let bounds: Vec<_> = rivals.iter().map(|rival| (rival.at_most, rival.floor)).collect();
        let mut contenders = vec![ours];
        contenders.extend(rivals.into_iter().map(|rival| rival.contender));
        let mut times = vec![Vec::with_capacity(rounds); contenders.len()];
        for round in 0..=rounds {
            self.say(&format!("{work}: round {round}/{rounds}"));
            interrupt::check()?;
            for turn in 0..contenders.len() {
                let turn = if round % 2 == 0 { turn } else { contenders.len() - 1 - turn };
                let at = (turn + round / 2) % contenders.len();
                let (Some(contender), Some(times)) = (contenders.get_mut(at), times.get_mut(at))
                else {
                    continue;
                };
                let time =
                    (contender.round)().with_context(|| format!("{work}: {}", contender.name))?;
                if round > 0 {
                    times.push(time);
                }
            }
        }
        self.say("");
        let mut sides = contenders.into_iter().map(|contender| contender.name).zip(times);
        let (ours, our_times) = sides.next().context("nobody to measure")?;
        let sides: Vec<_> = sides.collect();
        for ((rival, rival_times), (at_most, floor)) in sides.iter().zip(bounds) {
            let ratio = median_ratio(&our_times, rival_times)?;
            let (floor, within_reach) = match floor {
                None => (None, None),
                Some(Floor { rival, at_most: times }) => {
                    let (_, floor_times) = sides.get(rival).context("no such rival")?;
                    let floor = median_ratio(floor_times, rival_times)?;
                    let reach = floor * times;
                    (Some(floor), at_most.is_some_and(|bound| reach > bound).then_some(reach))
                }
            };
            self.rows.push(Row {
                work: work.to_owned(),
                rounds,
                ours: ours.clone(),
                ours_ns: median_time(&our_times)?.as_nanos(),
                rival: rival.clone(),
                rival_ns: median_time(rival_times)?.as_nanos(),
                ratio,
                at_most,
                floor,
                within_reach,
                ok: within_reach.or(at_most).is_none_or(|bound| ratio <= bound),
            });
        }
        Ok(())
    }

    /// Records a figure and the bound of the figure.
    pub(crate) fn figure(&mut self, what: &str, value: f64, unit: &str, at_most: Option<f64>) {
        let ok = at_most.is_none_or(|bound| value <= bound);
        self.figures.push(Figure {
            what: what.to_owned(),
            value,
            unit: unit.to_owned(),
            at_most,
            ok,
        });
    }

    /// Adds a line above the table, such as the binaries in use.
    pub(crate) fn note(&mut self, note: impl Into<String>) {
        self.notes.push(note.into());
    }

    /// Prints the results. Returns false if a bound was exceeded.
    pub(crate) fn finish(&self, name: &str, as_json: bool) -> Result<bool> {
        let Self { rows, figures, notes, .. } = self;
        ensure!(!rows.is_empty() || !figures.is_empty(), "bench {name} measured nothing");
        let good = rows.iter().all(|row| row.ok) && figures.iter().all(|figure| figure.ok);
        if as_json {
            let report = json!({ "bench": name, "ok": good, "rows": rows, "figures": figures, "notes": notes });
            println!("{report:#}");
        } else {
            self.print();
        }
        Ok(good)
    }

    fn print(&self) {
        for note in &self.notes {
            println!("{note}");
        }
        let bound =
            |at_most: Option<f64>| at_most.map_or_else(String::new, |bound| format!("{bound}"));
        let verdict = |at_most: Option<f64>, ok| match (at_most, ok) {
            (None, _) => String::new(),
            (Some(_), true) => "ok".to_owned(),
            (Some(_), false) => "EXCEEDED".to_owned(),
        };
        let reach = |row: &Row| match (row.floor, row.within_reach) {
            (Some(floor), Some(reach)) if row.at_most.is_some_and(|bound| row.ratio > bound) => {
                format!(", the bare calls take {floor:.2}: {reach:.2}")
            }
            _ => String::new(),
        };
        if !self.rows.is_empty() {
            let mut table = Table::new([
                "work",
                "ours",
                "rival",
                "rival time",
                "ratio",
                "at most",
                "",
                "rounds",
            ]);
            for row in &self.rows {
                table.row([
                    row.work.clone(),
                    time(row.ours_ns),
                    row.rival.clone(),
                    time(row.rival_ns),
                    format!("{:.3}", row.ratio),
                    bound(row.at_most) + &reach(row),
                    verdict(row.at_most, row.ok),
                    row.rounds.to_string(),
                ]);
            }
            print!("{table}");
        }
        if !self.figures.is_empty() {
            let mut table = Table::new(["figure", "value", "unit", "at most", ""]);
            for figure in &self.figures {
                table.row([
                    figure.what.clone(),
                    format!("{:.3}", figure.value),
                    figure.unit.clone(),
                    bound(figure.at_most),
                    verdict(figure.at_most, figure.ok),
                ]);
            }
            print!("\n{table}");
        }
    }

    /// Shows the current round on a terminal.
    fn say(&self, line: &str) {
        if std::io::IsTerminal::is_terminal(&std::io::stderr()) {
            eprint!("\r\x1b[2K{line}");
        }
    }
}

/// Returns the median of the rounds' ratios.
fn median_ratio(ours: &[Duration], theirs: &[Duration]) -> Result<f64> {
    let ratios =
        ours.iter().zip(theirs).map(|(ours, theirs)| ours.as_secs_f64() / theirs.as_secs_f64());
    median(ratios.collect(), f64::total_cmp).context("no round")
}

fn median_time(times: &[Duration]) -> Result<Duration> {
    median(times.to_vec(), Ord::cmp).context("no round")
}

/// Returns the middle value; of two middle values, the larger.
pub(crate) fn median<T: Copy>(
    mut values: Vec<T>,
    order: impl FnMut(&T, &T) -> std::cmp::Ordering,
) -> Option<T> {
    values.sort_by(order);
    values.get(values.len() / 2).copied()
}

fn time(ns: u128) -> String {
    match ns {
        0..10_000 => format!("{ns} ns"),
        10_000..10_000_000 => format!("{}.{:03} ms", ns / 1_000_000, ns / 1_000 % 1_000),
        _ => format!("{}.{} ms", ns / 1_000_000, ns / 100_000 % 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(ms: &[u64]) -> impl FnMut() -> Result<Duration> {
        let mut times = ms.iter().copied().cycle();
        move || Ok(Duration::from_millis(times.next().context("no time")?))
    }

    #[test]
    fn exceeded_bounds_fail_the_check() {
        let mut session = Session::default();
        // The first round warms up and does not count.
        let ours = || Contender::new("ours", times(&[900, 10, 40, 10]));
        let rival = |ratio| Rival::new("rival", times(&[1, 10, 20, 10])).at_most(ratio);
        session.compare("work", 3, ours(), vec![rival(1.1)]).unwrap();
        assert_eq!(session.rows[0].ratio, 1.0);
        assert_eq!(session.rows[0].rival_ns, 10_000_000);
        assert!(session.rows[0].ok);
        session.compare("work", 3, ours(), vec![rival(0.9)]).unwrap();
        assert!(!session.finish("t", false).unwrap());
    }

    #[test]
    fn the_floor_relaxes_the_bound() {
        let mut session = Session::default();
        let rivals = |ratio| {
            let rival = Rival::new("rival", times(&[10])).at_most(ratio).over_floor(1, 1.3);
            vec![rival, Rival::new("bare", times(&[8])).at_most(1.3)]
        };
        // The bare calls take 0.8 of the rival's time, and ours may take 1.3 times that.
        let compare = |session: &mut Session, ms, ratio| {
            session
                .compare("work", 3, Contender::new("ours", times(&[ms])), rivals(ratio))
                .unwrap();
        };
        compare(&mut session, 10, 0.7);
        let row = &session.rows[0];
        assert!((row.within_reach.unwrap() - 1.04).abs() < 1e-9 && row.ok, "{row:?}");
        // A bound above the floor is not relaxed.
        compare(&mut session, 10, 1.2);
        assert!(session.rows[2].within_reach.is_none() && session.rows[2].ok);
        compare(&mut session, 11, 0.7);
        assert!(!session.rows[4].ok && !session.finish("t", false).unwrap());
    }

    #[test]
    fn exceeded_figures_fail_the_check() {
        let mut session = Session::default();
        session.figure("cpu", 0.5, "%", Some(0.6));
        session.figure("cpu", 0.7, "%", Some(0.6));
        assert!(!session.finish("t", false).unwrap());
    }

    #[test]
    fn measuring_nothing_is_an_error() {
        assert!(Session::default().finish("t", false).is_err());
    }

    #[test]
    fn times_are_formatted() {
        assert_eq!(time(9_999), "9999 ns");
        assert_eq!(time(1_234_567), "1.234 ms");
        assert_eq!(time(12_345_678), "12.3 ms");
    }
}

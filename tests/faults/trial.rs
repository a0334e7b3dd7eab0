//! One injection into one launcher, and the judgement of the result.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use nix::sys::wait::WaitStatus;

use crate::calls::{self, Known};
use crate::messages::{ErrorReport, Line, Many, Role};
use crate::report::Report;
use crate::scene::Scene;
use crate::tracer::{Call, Injection, Opened, Traced, Watch, trace};

/// The number of recorded runs: a waiting loop does not always run the same number of times.
const RECORDINGS: usize = 3;

/// The selection of injections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Choice {
    /// Every call fails with each errno, and the launcher is killed before every call.
    Whole,
    /// Of each kind of call in each phase one fails with one errno, and the launcher is killed before another.
    Sample,
}

/// A injection to come: the call, what is known of it, and what is done.
type Planned<'a> = (&'a Call, Known, Injection);

/// ErrorReport how many injections have been dealt, of how many, and the next.
pub type OnProgress<'a> = &'a mut (dyn FnMut(usize, usize, &str) + Send);

/// Runs launchers under injection, one at a time per scene (the scenes are equal), in the named phases, or in all
/// phases if none is named.
///
/// # Errors
/// Fails if a launcher without an injection fails, or if a launcher cannot be traced.
pub fn run(
    scenes: &[Scene],
    choice: Choice,
    phases: &[String],
    progress: OnProgress<'_>,
) -> Result<Report> {
    let mut report = Report::default();
    let mut seen = BTreeSet::new();
    let mut lives = Vec::new();
    for recording in 0..RECORDINGS {
        progress(recording, RECORDINGS, "record a life");
        let scene = scenes.get(recording % scenes.len()).context("no scene")?;
        lives.extend(
            record(scene, Role::Life)?
                .calls
                .into_iter()
                .filter(|(call, _)| seen.insert(call.clone())),
        );
    }
    let mut injections = Vec::new();
    lives.retain(|(call, _)| phases.is_empty() || phases.contains(&call.phase));
    ensure!(!lives.is_empty(), "a launcher's life has no such phase: {phases:?}");
    for (call, arguments) in &lives {
        report.phase(&call.phase).calls += 1;
        match calls::known(call.number, *arguments) {
            None => report.violated(call, "unknown", "what may it fail with? say so in calls.rs"),
            Some(known) => {
                injections.extend(
                    known.errnos.iter().map(|errno| (call, known, Injection::Fail(*errno))),
                );
                injections.push((call, known, Injection::Kill));
            }
        }
    }
    if choice == Choice::Sample {
        injections = sample(injections);
    }
    let work =
        Work { injections, next: AtomicUsize::new(0), so_far: Mutex::new((report, progress)) };
    std::thread::scope(|scope| {
        let workers: Vec<_> = scenes.iter().map(|scene| scope.spawn(|| work.deal(scene))).collect();
        workers.into_iter().try_for_each(|worker| match worker.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        })
    })?;
    let (report, _) = work.so_far.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(report)
}

/// The data that all scenes share.
struct Work<'a> {
    injections: Vec<Planned<'a>>,
    next: AtomicUsize,
    so_far: Mutex<(Report, OnProgress<'a>)>,
}

impl Work<'_> {
    /// Deals injections until there are no more.
    fn deal(&self, scene: &Scene) -> Result<()> {
        let so_far = || self.so_far.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let done = self.next.fetch_add(1, Ordering::Relaxed);
            let Some((call, known, injection)) = self.injections.get(done) else { return Ok(()) };
            let name = match injection {
                Injection::Fail(errno) => format!("{} fails with {errno:?}", known.name),
                Injection::Kill => format!("killed before {}", known.name),
            };
            (so_far().1)(done, self.injections.len(), &format!("{}: {name}", call.phase));
            let verdict = strike(scene, call, *known, *injection)
                .with_context(|| format!("{}, call {}: {name}", call.phase, call.nth));
            if verdict.is_err() {
                // The others need not go on.
                self.next.store(self.injections.len(), Ordering::Relaxed);
            }
            so_far().0.add(call, *injection, &name, verdict?);
        }
    }
}

impl Report {
    fn add(&mut self, call: &Call, injection: Injection, name: &str, verdict: Verdict) {
        let phase = self.phase(&call.phase);
        match (injection, &verdict) {
            (_, Verdict::Missed) => phase.missed += 1,
            (Injection::Fail(_), verdict) => {
                phase.faults += 1;
                phase.reported += u64::from(*verdict == Verdict::Reported);
                phase.succeeded += u64::from(*verdict == Verdict::Succeeded);
            }
            (Injection::Kill, verdict) => {
                phase.kills += 1;
                phase.recovered += u64::from(*verdict == Verdict::Recovered);
            }
        }
        if let Verdict::Violated(what) = verdict {
            self.violated(call, name, &what);
        }
    }
}

/// Of each kind of call in each phase the fault in the middle, and one kill.
fn sample(injections: Vec<Planned<'_>>) -> Vec<Planned<'_>> {
    let kind = |(call, known, injection): &Planned<'_>| {
        (call.phase.clone(), known.name, *injection == Injection::Kill)
    };
    let kinds = injections.iter().map(kind).collect::<BTreeSet<_>>();
    let mut chosen = Vec::new();
    for wanted in &kinds {
        let alike =
            injections.iter().filter(|injection| kind(injection) == *wanted).collect::<Vec<_>>();
        chosen.extend(alike.get(alike.len() / 2).map(|injection| **injection));
    }
    chosen
}

/// Returns every open of a launcher that takes a VM through its verbs, or many jails.
///
/// # Errors
/// Fails if the launcher fails, or cannot be traced.
pub fn opened(scene: &Scene, many: Option<Many>) -> Result<Vec<Opened>> {
    Ok(record(scene, many.map_or(Role::Life, Role::Many))?.opened)
}

/// A run that nothing is done to.
fn record(scene: &Scene, role: Role) -> Result<Traced> {
    let mut life = Life::default();
    let traced = trace(scene.launcher(), &order(scene, role)?, Watch::Record, &mut |line| {
        life.hear(scene, line)
    })?;
    ensure!(
        life.over && life.failed.is_none() && traced.status == exited(&traced),
        "a launcher that nothing was done to does not come through: {life:?}, {:?}\n{}",
        traced.status,
        traced.stderr
    );
    ensure!(!traced.calls.is_empty(), "a launcher was not traced");
    let left = scene.left();
    ensure!(left.is_empty(), "and leaves:\n  {}", left.join("\n  "));
    Ok(traced)
}

/// The result of an injection.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Verdict {
    Missed,
    Succeeded,
    Reported,
    Recovered,
    Violated(String),
}

/// The messages of a launcher about a run.
#[derive(Debug, Default)]
struct Life {
    failed: Option<ErrorReport>,
    /// The remains after a failed phase that must leave nothing.
    left: Vec<String>,
    gave_up: Option<ErrorReport>,
    over: bool,
}

impl Life {
    /// The phase that the line begins.
    fn hear(&mut self, scene: &Scene, line: &str) -> Option<String> {
        // A test binary has words of its own on stdout.
        match serde_json::from_str(line).ok()? {
            Line::Begin(phase) => return Some(phase),
            Line::Failed(error) => {
                match error.phase.as_str() {
                    "plan" | "prepare" | "launch" => self.left = scene.left(),
                    "take" => self.left = scene.snapshots_left(),
                    "restore" => self.left = scene.jails_left(),
                    _ => {}
                }
                self.failed = Some(error);
            }
            Line::GaveUp(error) => self.gave_up = Some(error),
            Line::Over => self.over = true,
        }
        None
    }
}

fn strike(scene: &Scene, call: &Call, known: Known, injection: Injection) -> Result<Verdict> {
    let mut life = Life::default();
    let traced = trace(
        scene.launcher(),
        &order(scene, Role::Life)?,
        Watch::Strike(call, injection),
        &mut |line| life.hear(scene, line),
    )?;
    if !traced.injected {
        ensure!(
            life.over && !traced.hung,
            "a launcher that nothing was done to does not come through: {life:?}"
        );
        return Ok(Verdict::Missed);
    }
    let wrong = match injection {
        Injection::Fail(_) => judge(&life, &traced, known),
        // By turns.
        Injection::Kill if call.nth.is_multiple_of(2) => recover(scene, Role::Recovery)?,
        Injection::Kill => recover(scene, Role::Restart)?,
    };
    let mut wrong = wrong.into_iter().collect::<Vec<_>>();
    let mut left = scene.left();
    // A removal that failed half way leaves the rest to a sweep.
    if wrong.is_empty() && !left.is_empty() && is_removal(&call.phase) {
        wrong.extend(recover(scene, Role::Recovery)?);
        left = scene.left();
    }
    if !left.is_empty() {
        wrong.push(format!("left in the end:\n  {}", left.join("\n  ")));
    }
    if !wrong.is_empty() {
        // The next one is not to suffer from it.
        let _ = recover(scene, Role::Recovery)?;
        scene.clear();
        return Ok(Verdict::Violated(wrong.join("; ")));
    }
    Ok(match injection {
        Injection::Kill => Verdict::Recovered,
        Injection::Fail(_) if life.failed.is_some() => Verdict::Reported,
        Injection::Fail(_) => Verdict::Succeeded,
    })
}

/// Returns the violated rule, if any, after a run with a failed call.
fn judge(life: &Life, traced: &Traced, known: Known) -> Option<String> {
    let said = || format!("{:?}\n{}", life, traced.stderr);
    if traced.hung {
        return Some(format!("it hung: {}", said()));
    }
    if traced.stderr.contains("panicked") {
        return Some(format!("it panicked: {}", said()));
    }
    if let Some(error) = &life.gave_up {
        return Some(format!("it failed again with no fault: {}: {}", error.phase, error.whole));
    }
    if !life.over || traced.status != exited(traced) {
        return Some(format!("it ended with {:?}: {}", traced.status, said()));
    }
    let error = life.failed.as_ref()?;
    // A check of the host tries calls on no file: its name and what it found say what is wrong.
    let on_file = known.about_a_file && !error.operation.starts_with("pass the host check");
    if let Some(lack) = error.lacks(on_file) {
        return Some(format!("its error names no {lack}: {error:?}"));
    }
    if !life.left.is_empty() {
        return Some(format!(
            "it failed ({}) and left:\n  {}",
            error.whole,
            life.left.join("\n  ")
        ));
    }
    None
}

/// Returns true if a failure in the phase may leave a part of what the phase removes.
fn is_removal(phase: &str) -> bool {
    phase == "teardown" || phase.starts_with("removal of")
}

fn exited(traced: &Traced) -> WaitStatus {
    match traced.status {
        WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, ..) => WaitStatus::Exited(pid, 0),
        other => other,
    }
}

/// Has another launcher clear up, or not, and start the same VM again; what was wrong with that.
fn recover(scene: &Scene, role: Role) -> Result<Option<String>> {
    let mut life = Life::default();
    let traced = trace(scene.launcher(), &order(scene, role)?, Watch::Lines, &mut |line| {
        let begins = life.hear(scene, line);
        if role == Role::Recovery && begins.as_deref() == Some("plan") {
            life.left = scene.jails_left();
        }
        begins
    })?;
    let Life { failed, left, over, .. } = life;
    Ok(match failed {
        Some(error) => Some(format!("no recovery: {}: {}", error.phase, error.whole)),
        None if !left.is_empty() => Some(format!("a recovery left:\n  {}", left.join("\n  "))),
        None if !over => Some(format!("no recovery: {:?}\n{}", traced.status, traced.stderr)),
        None => None,
    })
}

fn order(scene: &Scene, role: Role) -> Result<String> {
    serde_json::to_string(&scene.order(role)).context("write the order")
}

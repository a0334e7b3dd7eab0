//! A race of an attacker against a verb, and against a twin of the verb without protection.
//!
//! The race fails if the verb loses once. The race also fails if the twin never loses, because then the attacker is too
//! weak. This file uses only the standard library: the tests of a published crate, which cannot depend on this
//! framework, include the file as a module.

use std::collections::BTreeMap;

/// The outcome of a round.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Round {
    /// The attack succeeded.
    Lost,
    /// The attack failed, with this outcome.
    Won(&'static str),
}

/// Returns true in the long form of the tests (`MICROVM_TEST_LONG=1`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("MICROVM_TEST_LONG").is_some_and(|value| value == "1")
}

/// Calls `verb` for 4 000 rounds while `attackers` run, then `twin` until a round is lost, and prints the outcomes.
///
/// In the long form, a race that is called `times` times has 1 000 000 rounds in total.
///
/// # Panics
/// If the verb loses a round, or the twin loses none.
pub fn race<A>(
    label: &str,
    times: u32,
    attackers: A,
    mut verb: impl FnMut() -> Round,
    mut twin: impl FnMut() -> Round,
) {
    let rounds = if long() { 1_000_000_u32.div_ceil(times) } else { 4_000 };
    let mut strong = BTreeMap::new();
    for _ in 0..rounds {
        *strong.entry(verb()).or_insert(0_u32) += 1;
    }
    let mut weak = BTreeMap::new();
    // The twin must lose at least once.
    for round in 0..rounds.max(200_000) {
        *weak.entry(twin()).or_insert(0_u32) += 1;
        if round >= 1_000 && weak.contains_key(&Round::Lost) {
            break;
        }
    }
    drop(attackers);
    // The runner repeats lines that begin with `race: `.
    println!("race: {label}: verb {}; twin {}", histogram(&strong), histogram(&weak));
    assert_eq!(strong.get(&Round::Lost), None, "the verb lost");
    assert!(weak.contains_key(&Round::Lost), "the weak twin never lost: nothing was contested");
}

fn histogram(outcomes: &BTreeMap<Round, u32>) -> String {
    let named = outcomes.iter().map(|(outcome, count)| match outcome {
        Round::Lost => format!("LOST {count}"),
        Round::Won(how) => format!("{how} {count}"),
    });
    named.collect::<Vec<_>>().join(", ")
}

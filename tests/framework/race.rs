//! A race: an attacker against the real verb, and against a weak twin of it.
//!
//! It fails if the verb loses once, and also if the twin never loses: then nothing was contested. Nothing but the
//! standard library is used here, so that the tests inside a published crate, which may not build on this framework, can
//! take the file in as a module.

use std::collections::BTreeMap;

/// How one round ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Round {
    /// The attacker got what it wanted.
    Lost,
    /// It did not, and this is what happened instead.
    Won(&'static str),
}

/// Whether this is the long run (`MICROVM_TEST_LONG=1`).
#[must_use]
pub fn long() -> bool {
    std::env::var_os("MICROVM_TEST_LONG").is_some_and(|value| value == "1")
}

/// Plays `verb` for 4 000 rounds, in the long run for as many as make 1 000 000 of a race that is run `times` times,
/// then `twin` until it has lost, while `attackers` run; prints how the rounds ended.
///
/// # Panics
/// When the verb lost, or the twin never did.
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
    // The twin may lose as often as it likes; it has to lose once.
    for round in 0..rounds.max(200_000) {
        *weak.entry(twin()).or_insert(0_u32) += 1;
        if round >= 1_000 && weak.contains_key(&Round::Lost) {
            break;
        }
    }
    drop(attackers);
    // The runner repeats what begins like this.
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

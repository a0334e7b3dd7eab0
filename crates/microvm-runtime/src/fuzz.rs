//! Parsers on arbitrary bytes. `PROPTEST_CASES=10000000 cargo test --release -p microvm-runtime --lib fuzz` is the long run;
//! every run begins with `tests/corpus/`.

#![expect(clippy::disallowed_methods, reason = "the corpus is read by name")]

use std::path::Path;

use proptest::prelude::*;
use proptest::sample::Index;

use crate::{api, jail, vmm};

/// The files of `tests/corpus/<target>`.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(target);
    let files = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    files.map(|file| std::fs::read(file).unwrap()).collect()
}

/// Arbitrary bytes, or a file of the corpus with some bytes replaced, cut off, or followed by a part of another.
fn bytes(target: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
    let files = corpus(target);
    let changes = prop::collection::vec((any::<Index>(), any::<u8>()), 0..6);
    let damaged = (any::<Index>(), changes, any::<Index>(), any::<Index>(), 0..8_u8);
    let damaged = damaged.prop_map(move |(file, changes, end, from, how)| {
        let mut bytes = file.get(&files).clone();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if how < 2 {
            bytes.truncate(end.index(bytes.len()));
        }
        if how == 1 {
            let other = from.get(&files);
            bytes.extend(&other[end.index(other.len())..]);
        }
        bytes
    });
    prop_oneof![1 => prop::collection::vec(any::<u8>(), 0..120), 3 => damaged]
}

/// Tests a parser with each file of the corpus, and with arbitrary bytes.
macro_rules! fuzz {
    ($($test:ident: $target:literal, $parse:path;)*) => { $(
        #[test]
        fn $test() {
            let files = corpus($target);
            assert!(files.len() >= 2, "{} has {} files", $target, files.len());
            files.iter().for_each(|bytes| $parse(bytes));
            proptest!(|(bytes in bytes($target))| $parse(&bytes));
        }
    )* };
}

fuzz! {
    responses_never_panic: "response", api::fuzz::response;
    instances_are_harmless: "instance", api::fuzz::instance;
    records_survive_their_text: "record", jail::fuzz::record;
    specs_survive_their_text: "spec", jail::fuzz::spec;
    leases_are_one_jails: "lease", jail::fuzz::lease;
    stats_are_read_behind_the_name: "stat", vmm::fuzz::stat;
    statuses_never_panic: "status", vmm::fuzz::status;
    command_lines_lead_to_one_jail: "command-line", vmm::fuzz::command_line;
    last_words_are_short: "last-words", vmm::fuzz::last_words;
    stamps_survive_their_text: "stamp", vmm::fuzz::stamp;
    releases_are_read_or_refused: "release", vmm::fuzz::release;
}

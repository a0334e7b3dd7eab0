//! Reports skipped tests, so that a skip is never counted as a pass.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The file from which the runner reads skipped tests, one `<test>: <why>` per line.
pub const SKIPS_ENV: &str = "MICROVM_TEST_SKIPS";

/// Reports that `test` is skipped because of `why`. The test must return after the call.
///
/// Prints `skipped: <test>: <why>` and appends `<test>: <why>` to the file named by `MICROVM_TEST_SKIPS`. The runner
/// counts the skips, and fails under `--require`. A missing *privilege* is no reason for a skip: the test must panic.
///
/// # Panics
/// If the file cannot be written, because an uncounted skip would be a silent pass.
pub fn skip(test: &str, why: &str) {
    let line = format!("{test}: {}", why.replace('\n', " "));
    println!("skipped: {line}");
    let Some(file) = std::env::var_os(SKIPS_ENV) else {
        return;
    };
    OpenOptions::new()
        .create(true)
        .append(true)
        .open(&file)
        // A single write, so that lines of parallel tests do not mix.
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .unwrap_or_else(|err| panic!("count the skip of {test} in {}: {err}", file.display()));
}

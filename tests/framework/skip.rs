//! What a machine cannot do is said, counted and named: skipped is never passed.

use std::fs::OpenOptions;
use std::io::Write as _;

/// The file the runner reads the skipped tests from, one `<test>: <why>` a line.
pub const SKIPS_ENV: &str = "MICROVM_TEST_SKIPS";

/// Reports that `test` did not run here, and why; the caller returns right after.
///
/// Prints `skipped: <test>: <why>` and appends the same to the file named by `MICROVM_TEST_SKIPS`, by which the runner
/// counts and names it (and fails under `--require`). A missing *privilege* is no reason to skip: that panics.
///
/// # Panics
/// When the runner's file cannot be written: a skip that is not counted would be a silent pass.
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
        // One write: lines of tests that run at once do not mix.
        .and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()))
        .unwrap_or_else(|err| panic!("count the skip of {test} in {}: {err}", file.display()));
}

//! Counting a skipped unit test: a published crate builds without testkit.

use std::fs::File;
use std::io::Write as _;

/// Prints that the test was skipped, and counts the skip as `testkit::skip` does.
#[expect(clippy::disallowed_methods, reason = "the file of the test's runner")]
pub(super) fn skip(test: &str, why: &str) {
    println!("skipped: {test}: {why}");
    if let Some(file) = std::env::var_os("MICROVM_TEST_SKIPS") {
        let mut file = File::options().create(true).append(true).open(file).unwrap();
        file.write_all(format!("{test}: {why}\n").as_bytes()).unwrap();
    }
}

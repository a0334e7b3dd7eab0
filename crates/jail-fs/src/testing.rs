//! Helpers of the unit tests.
#![expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]

use std::fs::File;

use cap_std::fs::Dir;
use tempfile::TempDir;

use crate::base::TrustedDir;

/// Makes a directory for this test, and a handle.
pub(crate) fn held() -> (TempDir, Dir) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = Dir::from_std_file(File::open(tmp.path()).unwrap());
    (tmp, dir)
}

/// The same, trusted.
pub(crate) fn trusted() -> (TempDir, TrustedDir) {
    let tmp = tempfile::tempdir().unwrap();
    let dir = TrustedDir::open(tmp.path()).unwrap();
    (tmp, dir)
}

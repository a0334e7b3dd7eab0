//! SHA-256 of a snapshot's file.

use std::fmt::Write as _;
use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileExt as _;

use jail_fs::Artifact;
use sha2::{Digest as _, Sha256};

use crate::error::{Error, ErrorKind, Result};

/// Bytes that are read at once.
const BLOCK: usize = 1 << 20;

/// Returns the SHA-256 of the file's content, in lower-case hexadecimal digits.
pub(super) fn sha256(file: &Artifact) -> Result<String> {
    let failed = |error: std::io::Error| {
        Error::new(ErrorKind::Filesystem, "read for its SHA-256").path(file.path()).source_of(error)
    };
    let content = File::from(file.as_fd().try_clone_to_owned().map_err(failed)?);
    let mut block = vec![0; BLOCK];
    let (mut digest, mut at) = (Sha256::new(), 0);
    loop {
        match content.read_at(&mut block, at) {
            Ok(0) => break,
            Ok(read) => {
                digest.update(&block[..read]);
                at += u64::try_from(read).unwrap_or(0);
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(failed(error)),
        }
    }
    let mut text = String::new();
    for byte in digest.finalize() {
        let _ = write!(text, "{byte:02x}");
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test's own file")]
    fn known_digests_are_computed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "abc").unwrap();
        assert_eq!(
            sha256(&Artifact::open(&path).unwrap()).unwrap(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}

//! A copy for others to share.

use super::artifact::Artifact;
use super::options::CopyOptions;
use super::private_copy::private_copy;
use super::receipt::Receipt;
use super::staging_dir::StagingDir;
use crate::error::Result;
use crate::name::Name;
use crate::owner::Owner;

/// Mode of an archived file: to be read by everybody who can reach the file, and written by nobody.
pub(super) const MODE: u32 = 0o444;

/// Copies `source` to the fresh file `name` in `dir`: the caller's own, 0444, so that [`read_only`](crate::read_only) can
/// share the copy with any reader later.
///
/// The ladder is that of [`private`](crate::private). The copy is a new inode in any case: a process that still has the
/// source open for writing cannot reach the copy.
///
/// # Errors
/// As [`private`](crate::private).
pub fn archive<'a>(
    source: &Artifact,
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    options: &CopyOptions<'_>,
) -> Result<Receipt> {
    source.expect_file("archive")?;
    private_copy(source, (dir.into(), name), (Owner::caller(), MODE), options, None)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

    use super::*;
    use crate::testing::held;

    #[test]
    fn a_kept_descriptor_misses_the_copy() {
        let (tmp, dir) = held();
        let path = |name: &str| tmp.path().join(name);
        let mut kept = std::fs::File::create(path("memory")).unwrap();
        kept.write_all(b"guest").unwrap();
        let name = |name: &str| Name::try_from(name).unwrap();
        let source = Artifact::open_in(&dir, &name("memory")).unwrap();
        archive(&source, &dir, &name("copy"), &CopyOptions::new()).unwrap();
        kept.write_all(b", rewritten").unwrap();
        assert_eq!(std::fs::read(path("copy")).unwrap(), b"guest");
        let copy = std::fs::metadata(path("copy")).unwrap();
        assert_eq!((copy.permissions().mode() & 0o7777, copy.nlink()), (0o444, 1));
    }

    #[test]
    fn zeroes_become_holes() {
        let (tmp, dir) = held();
        let path = |name: &str| tmp.path().join(name);
        let mut bytes = vec![0; 4 << 20];
        bytes[3 << 20] = 7;
        std::fs::write(path("memory"), &bytes).unwrap();
        let name = |name: &str| Name::try_from(name).unwrap();
        let source = Artifact::open_in(&dir, &name("memory")).unwrap();
        let options = CopyOptions::new().zeroes_to_holes(true);
        let receipt = archive(&source, &dir, &name("copy"), &options).unwrap();
        assert_eq!(std::fs::read(path("copy")).unwrap(), bytes);
        assert!(receipt.bytes_copied < 1 << 20, "{receipt:?}");
    }
}

//! Removing single names.

use cap_std::fs::Dir;

use super::emptier::busy;
use crate::error::{Error, Result};
use crate::name::Name;
use crate::sys::{self, Errno};

/// Removes these names from `dir` (`unlinkat(2)`): files, sockets, nodes, links (not what they lead to) and empty
/// directories. Returns the names that existed; a missing name is fine.
///
/// # Errors
/// [`Mounted`](crate::ErrorKind::Mounted) for a mount point; the kernel's answer, for example for a directory that is
/// not empty. The names before it in `names` are then removed.
pub fn scrub(dir: &Dir, names: &[Name]) -> Result<Vec<Name>> {
    let mut removed = Vec::new();
    for name in names {
        let mut answer = sys::unlink(dir, name.as_os_str());
        if answer == Err(Errno::EISDIR) {
            answer = sys::remove_dir(dir, name.as_os_str());
        }
        match answer {
            Ok(()) => removed.push(name.clone()),
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                let error = Error::at("remove", dir, name, errno);
                return Err(match errno {
                    Errno::EBUSY => busy(error, dir, name.as_os_str()),
                    Errno::ENOTEMPTY => error.because("the directory is not empty"),
                    _ => error,
                });
            }
        }
    }
    Ok(removed)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::fs;

    use super::*;
    use crate::testing::held;

    #[test]
    fn only_named_entries_are_removed() {
        let (tmp, dir) = held();
        let path = |name: &str| tmp.path().join(name);
        fs::write(path("kept"), "kept").unwrap();
        fs::write(path("file"), "").unwrap();
        fs::create_dir(path("empty")).unwrap();
        fs::create_dir_all(path("full/below")).unwrap();
        std::os::unix::fs::symlink("kept", path("link")).unwrap();
        let names =
            ["file", "missing", "empty", "link", "full"].map(|name| Name::try_from(name).unwrap());
        let removed = scrub(&dir, &names[..4]).unwrap();
        assert_eq!(removed, [names[0].clone(), names[2].clone(), names[3].clone()]);
        assert!(
            scrub(&dir, &names)
                .unwrap_err()
                .to_string()
                .ends_with("full: the directory is not empty")
        );
        assert_eq!(fs::read_to_string(path("kept")).unwrap(), "kept");
    }
}

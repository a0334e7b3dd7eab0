//! Removing exactly what is named.

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::{Error, Result, locate};
use crate::name::Name;

/// Removes these names from `dir` (`unlinkat(2)`): files, sockets, nodes, links (not what they lead to) and empty
/// directories. Returns those that were there; the others are fine.
///
/// # Errors
/// [`Mounted`](crate::ErrorKind::Mounted) for a mount point; what the kernel answers, for example for a directory that
/// is not empty. What came before in `names` is then gone.
pub fn scrub(dir: &Dir, names: &[Name]) -> Result<Vec<Name>> {
    let mut removed = Vec::new();
    for name in names {
        let mut answer = unlinkat(dir, name.as_os_str(), UnlinkatFlags::NoRemoveDir);
        if answer == Err(Errno::EISDIR) {
            answer = unlinkat(dir, name.as_os_str(), UnlinkatFlags::RemoveDir);
        }
        match answer {
            Ok(()) => removed.push(name.clone()),
            Err(Errno::ENOENT) => {}
            Err(errno) => {
                let error = Error::at("remove", dir, name, errno);
                return Err(match errno {
                    Errno::EBUSY => error.over_mounts(vec![locate(dir).join(name)]),
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
    fn what_is_named_goes_and_nothing_else() {
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

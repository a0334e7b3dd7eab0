//! The few host paths that are looked at by name, because the jailer is given their names.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use jail_cmd::HostPath;
use rustix::fs::{Mode, OFlags};

use crate::error::{ErrorKind, Failure, Result};

/// Magic number of nsfs, `statfs(2)`.
const NSFS_MAGIC: i64 = 0x6e73_6673;

/// The canonical path of an executable regular file (`realpath(3)`): the jailer names the jail after it.
pub(crate) fn executable(what: &str, path: &Path) -> Result<HostPath> {
    let operation = format!("find the {what}");
    let canonical = canonical(&operation, path)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "looked at by name since the jailer takes a name"
    )]
    let metadata = std::fs::metadata(canonical.as_path()).map_err(|error| {
        Failure::new(ErrorKind::NotFound, &operation).path(path).source_of(error)
    })?;
    if !metadata.is_file() {
        return Err(Failure::invalid(operation, "it is not a regular file").path(path));
    }
    if metadata.permissions().mode() & 0o111 == 0 {
        return Err(Failure::invalid(operation, "it is not executable").path(path));
    }
    Ok(canonical)
}

/// The canonical path of a network namespace: a file of nsfs, such as `/run/netns/<name>`.
///
/// Canonical, since jailer 1.16.0 refuses a link.
pub(crate) fn network_namespace(path: &Path) -> Result<HostPath> {
    let operation = "find the network namespace";
    let canonical = canonical(operation, path)?;
    let file =
        rustix::fs::open(canonical.as_path(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
            .map_err(|error| {
                Failure::new(ErrorKind::NotFound, operation).path(path).source_of(error)
            })?;
    let fs = rustix::fs::fstatfs(&file).map_err(|error| {
        Failure::new(ErrorKind::Filesystem, operation).path(path).source_of(error)
    })?;
    if fs.f_type != NSFS_MAGIC {
        return Err(Failure::invalid(operation, "it is not a namespace")
            .path(path)
            .hinted("make one with `ip netns add`"));
    }
    Ok(canonical)
}

fn canonical(operation: &str, path: &Path) -> Result<HostPath> {
    if !path.is_absolute() {
        return Err(Failure::invalid(operation, "it must be an absolute path").path(path));
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "the jailer canonicalises the name too; ours must agree"
    )]
    let canonical = std::fs::canonicalize(path).map_err(|error| {
        Failure::new(ErrorKind::NotFound, operation).path(path).source_of(error)
    })?;
    HostPath::try_from(canonical).map_err(|error| {
        Failure::new(ErrorKind::InvalidInput, operation).path(path).source_of(error)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_executable_file_is_named() {
        for (path, word) in [
            ("firecracker", "absolute"),
            ("/does/not/exist", "No such file"),
            ("/proc", "regular file"),
            ("/proc/version", "not executable"),
        ] {
            let error = executable("exec file", Path::new(path)).unwrap_err();
            assert!(error.contains(word) && error.contains(path), "{}", &*error);
        }
        assert_eq!(
            executable("exec file", Path::new("/proc/self/exe")).unwrap().as_path(),
            std::env::current_exe().unwrap()
        );
    }

    #[test]
    fn a_namespace_is_a_file_of_nsfs() {
        assert!(
            network_namespace(Path::new("/proc/version")).unwrap_err().contains("not a namespace")
        );
        assert!(network_namespace(Path::new("/run/netns/none-such")).is_err());
    }
}

//! Whether root here is the host's root.

use std::fs;

use super::fault::Fault;
use crate::error::ErrorKind;
use crate::sys::file::FileStat;

/// Inode number of the first user namespace: `PROC_USER_INIT_INO` of `linux/proc_ns.h`, the same in every kernel.
const INITIAL: u64 = 0xEFFF_FFFD;

/// Refuses to work in a user namespace other than the host's first one. In any other, mknod(2) of a device node fails, and
/// no file can belong to an unmapped uid.
pub(super) fn check() -> Result<(), Fault> {
    // A kernel without user namespaces has no such file.
    let Ok(namespace) = FileStat::of_path("/proc/self/ns/user") else { return Ok(()) };
    if namespace.id().1 == INITIAL {
        return Ok(());
    }
    #[expect(clippy::disallowed_methods, reason = "a file of procfs")]
    let map = fs::read("/proc/self/uid_map").unwrap_or_default();
    let map = String::from_utf8_lossy(&map);
    let lines: Vec<_> = map
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .take(4)
        .collect();
    Err(Fault::new(
        ErrorKind::Privilege,
        format!(
            "this process is in a user namespace (uid_map: {}), in which no device node can be made",
            if lines.is_empty() { "empty".to_owned() } else { lines.join(", ") }
        ),
        "Run the launcher as root of the host: not in a rootless container, without `unshare --user` or PrivateUsers=.",
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn the_hosts_user_namespace_passes() {
        super::check().unwrap();
    }
}

//! Whether `/` is a mount point, as the jailer's `mount("/", MS_SLAVE)` and `pivot_root(2)` need.

use super::fault::Fault;
use crate::error::ErrorKind;
use crate::sys;

/// Refuses a root directory that chroot(2) put inside a mount (`statx(2)`, Linux 5.8; older kernels pass).
pub(super) fn check() -> Result<(), Fault> {
    if sys::file::is_mount_point("/") != Some(false) {
        return Ok(());
    }
    Err(Fault::new(
        ErrorKind::Unsupported,
        "/ is no mount point: this process was put in its root directory by chroot",
        "Make the directory a mount before the chroot: `mount --bind DIR DIR && chroot DIR`.",
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    #[ignore = "needs root: cargo xtask test-root"]
    fn a_mounted_root_passes() {
        super::check().unwrap();
    }
}

//! Whether `/` is a mount point, as the jailer's `mount("/", MS_SLAVE)` and `pivot_root(2)` need.

use rustix::fs::{AtFlags, CWD, StatxAttributes, StatxFlags, statx};

use super::fault::Fault;
use crate::error::ErrorKind;

/// Refuses a root directory that chroot(2) put inside a mount (`statx(2)`, Linux 5.8; older kernels pass).
pub(super) fn check() -> Result<(), Fault> {
    let Ok(root) = statx(CWD, "/", AtFlags::empty(), StatxFlags::empty()) else { return Ok(()) };
    let known = root.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT);
    if !known || root.stx_attributes.contains(StatxAttributes::MOUNT_ROOT) {
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

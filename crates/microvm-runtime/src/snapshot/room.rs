//! Limits that a VM would hit while it writes its memory to a file: both of them kill.

use jail_cgroup::ByteSize;
use jail_fs::Dir;

use crate::error::{Error, ErrorKind, Result};
use crate::sys::file;
use crate::vm::Vm;
use crate::vmm::file_size_limit;

/// Refuses a snapshot of a VM that cannot write `bytes` of memory to a file in its jail at `root`.
///
/// A larger file than `RLIMIT_FSIZE` ends the VMM by `SIGXFSZ`. A file on tmpfs counts as memory of the control group, and
/// the OOM killer ends the VMM at the limit; on a disk, the kernel writes the pages out.
pub(super) fn check(vm: &Vm, root: &Dir, bytes: u64) -> Result<()> {
    let refuse = |because: String, hint: &str| {
        Err(Error::new(ErrorKind::Unsupported, "take the snapshot").because(because).hinted(hint))
    };
    if let Some(limit) = file_size_limit(vm.pid())?.filter(|limit| *limit < bytes) {
        return refuse(
            format!("the memory file has {bytes} bytes, and RLIMIT_FSIZE of the VMM is {limit}"),
            "Give the spec a larger `ResourceLimit::FileSize`.",
        );
    }
    let is_tmpfs = file::is_on(root, file::TMPFS).unwrap_or(false);
    let Some(limit) = vm.record.spec.limits.memory().filter(|_| is_tmpfs) else {
        return Ok(());
    };
    let used = vm.open_leaf()?.and_then(|leaf| leaf.stats().ok()?.memory_current);
    let used = used.map_or(0, ByteSize::as_bytes);
    if limit.as_bytes().saturating_sub(used) < bytes {
        return refuse(
            format!(
                "the jail is on tmpfs, so that the memory file of {bytes} bytes counts as memory: {used} of {limit} are used"
            ),
            "Raise `Limits::memory_max`, or choose a chroot base on a disk.",
        );
    }
    Ok(())
}

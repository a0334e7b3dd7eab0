//! The kernel modules the tests need, and those they need themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write;

use anyhow::{Context as _, Result};
use xshell::{Shell, cmd};

use super::cpio::Archive;
use super::debian::Debian;

/// The disks, the filesystems and devices root tests make use of; ext4 and tmpfs are built in.
pub(super) const LOADED: [&str; 6] = ["virtio_pci", "virtio_blk", "loop", "xfs", "btrfs", "tun"];

/// Adds them with a `modules.dep` for the guest's modprobe(8).
pub(super) fn add<W: Write>(sh: &Shell, debian: &Debian, archive: &mut Archive<W>) -> Result<()> {
    let release = debian.kernel_release()?;
    let root = debian.root();
    let modules = format!("lib/modules/{release}");
    let list = root.join(&modules).join("modules.dep");
    if !list.exists() {
        let busybox = debian.program("busybox")?;
        cmd!(sh, "{busybox} depmod -b {root} {release}").quiet().run()?;
    }
    let list = fs::read_to_string(&list).with_context(|| format!("read {}", list.display()))?;
    let dependencies = parse(&list);
    let mut needed = BTreeSet::new();
    for name in LOADED {
        let file = format!("/{name}.ko");
        let (module, below) = dependencies
            .iter()
            .find(|(module, _)| module.ends_with(&file))
            .with_context(|| format!("kernel {release} has no module {name}"))?;
        needed.insert(*module);
        needed.extend(below);
    }
    for module in &needed {
        archive.program(&format!("{modules}/{module}"), &root.join(&modules).join(module))?;
    }
    let kept: String = needed
        .iter()
        .map(|module| format!("{module}: {}\n", dependencies[module].join(" ")))
        .collect();
    archive.bytes(&format!("{modules}/modules.dep"), 0o644, kept.as_bytes())
}

/// `kernel/fs/xfs/xfs.ko: kernel/lib/libcrc32c.ko`, with everything a module needs on its line.
fn parse(list: &str) -> BTreeMap<&str, Vec<&str>> {
    list.lines()
        .filter_map(|line| line.split_once(':'))
        .map(|(module, below)| (module, below.split_whitespace().collect()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read() {
        let list = "kernel/a.ko:\nkernel/b.ko: kernel/a.ko kernel/c.ko\n";
        let read = parse(list);
        assert_eq!(read["kernel/a.ko"], Vec::<&str>::new());
        assert_eq!(read["kernel/b.ko"], ["kernel/a.ko", "kernel/c.ko"]);
    }
}

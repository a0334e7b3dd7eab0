//! A real block device on an ordinary file.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::sys;

/// A loop device (loop(4)), detached on drop, or by the kernel with its last user should the test be killed.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Puts the file at `backing` behind a free loop device. `None` when this machine has no loop driver.
    ///
    /// # Errors
    /// When the driver is there and refuses: no privilege, no free device, an unreadable file.
    pub fn attach(backing: &Path) -> anyhow::Result<Option<Self>> {
        let control = match OpenOptions::new().read(true).write(true).open("/dev/loop-control") {
            Ok(control) => control,
            Err(err) if err.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(err) => return Err(err).context("open /dev/loop-control"),
        };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(backing)
            .with_context(|| format!("open {}", backing.display()))?;
        // Another process may take the free device first, or remove it: then the next one.
        for _ in 0..256 {
            let number = sys::free_loop_number(&control).context("find a free loop device")?;
            let number = u32::try_from(number).context("loop device number")?;
            let (path, device) = match open_node(number) {
                Ok(opened) => opened,
                Err(err) if is_gone(&err) => continue,
                Err(err) => return Err(err),
            };
            match sys::configure_loop(&device, file.as_fd()) {
                Ok(()) => return Ok(Some(Self { path, device })),
                Err(Errno::EBUSY | Errno::ENXIO) => std::thread::sleep(Duration::from_millis(5)),
                Err(err) => {
                    return Err(err).with_context(|| format!("attach {}", path.display()));
                }
            }
        }
        bail!("every free loop device was taken by someone else")
    }

    /// The device's node, such as `/dev/loop3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its device number, as `st_rdev` has it.
    ///
    /// # Panics
    /// When the descriptor we hold has no metadata, which cannot be.
    #[must_use]
    pub fn rdev(&self) -> u64 {
        self.device.metadata().expect("fstat a held loop device").rdev()
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        if let Err(err) = sys::clear_loop(&self.device) {
            eprintln!("left behind: {}: {err}", self.path.display());
        }
    }
}

/// Whether the device or its node was removed between two calls.
fn is_gone(err: &anyhow::Error) -> bool {
    err.downcast_ref::<std::io::Error>().is_some_and(|err| {
        matches!(err.raw_os_error().map(Errno::from_raw), Some(Errno::ENXIO | Errno::ENOENT))
    })
}

/// Opens `/dev/loop<number>`; makes the node where no devtmpfs does (the driver's major is 7).
fn open_node(number: u32) -> anyhow::Result<(PathBuf, File)> {
    let path = PathBuf::from(format!("/dev/loop{number}"));
    let node = makedev(7, number.into());
    match mknod(&path, SFlag::S_IFBLK, Mode::from_bits_truncate(0o600), node) {
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(err) => return Err(err).with_context(|| format!("make node {}", path.display())),
    }
    let device = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&path)
        .with_context(|| format!("open {}", path.display()))?;
    if !device.metadata()?.file_type().is_block_device() {
        bail!("{} is not a block device", path.display());
    }
    Ok((path, device))
}

//! A block device that is backed by a regular file.

use std::fs::{File, OpenOptions};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::errno::Errno;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};

use crate::sys;

/// A loop device (loop(4)), detached on drop. If the test is killed, the kernel detaches the device after the last
/// user.
#[derive(Debug)]
pub struct LoopDevice {
    path: PathBuf,
    device: File,
}

impl LoopDevice {
    /// Attaches the file `backing` to a free loop device. Returns `None` if this machine has no loop driver.
    ///
    /// # Errors
    /// If the driver refuses: no privilege, no free device, an unreadable file.
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
        // Another process may take or remove the free device first: try the next device.
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
        bail!("other processes took every free loop device")
    }

    /// Returns the device's node, such as `/dev/loop3`.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the device number, as in `st_rdev`.
    ///
    /// # Panics
    /// If fstat(2) fails on the open device, which is impossible.
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

/// Returns true if the error means that the device or the node was removed.
fn is_gone(err: &anyhow::Error) -> bool {
    err.downcast_ref::<std::io::Error>().is_some_and(|err| {
        matches!(err.raw_os_error().map(Errno::from_raw), Some(Errno::ENXIO | Errno::ENOENT))
    })
}

/// Opens `/dev/loop<number>`; makes the node if devtmpfs has not (the driver's major is 7).
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

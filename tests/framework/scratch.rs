//! A temporary directory that may be a chroot base.

use std::cell::RefCell;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU32, Ordering};

use nix::mount::{MntFlags, umount2};
use nix::sys::statvfs::{FsFlags, statvfs};

use crate::mounts;

/// The absolute path of the directory for scratch directories, instead of the default.
pub const DIR_ENV: &str = "MICROVM_TEST_DIR";

/// The prefix of every name made by [`unique`].
pub const PREFIX: &str = "vmtest-";

/// The mark of the run, set by the runner. Without the variable, each process is a separate run.
pub const RUN_ENV: &str = "MICROVM_TEST_RUN";

thread_local! {
    static NAMES: RefCell<Vec<String>> = const { RefCell::new(Vec::new()) };
}

/// Returns a mark that no other run on this host has: an `r` and six hexadecimal digits.
///
/// A pid is not unique: runs in different pid namespaces have equal pids.
#[must_use]
pub fn new_run() -> String {
    format!("r{:06x}", RandomState::new().hash_one(std::process::id()) >> 40)
}

/// Returns a name that no other test has: `vmtest-<label>-<run>-<process>-<n>z`; fits a control group, a directory, a
/// jail id, and in a path the 107 bytes of a socket's.
///
/// The thread remembers the name for [`HostState`](crate::HostState); the run's mark is in it for
/// [`left_by_run`](crate::left_by_run).
#[must_use]
pub fn unique(label: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static MARK: LazyLock<String> = LazyLock::new(|| {
        let process = new_run().split_off(3);
        let run = std::env::var(RUN_ENV).unwrap_or_else(|_| new_run());
        format!("{run}-{process}")
    });
    let n = NEXT.fetch_add(1, Ordering::Relaxed);
    // The last letter prevents a match of `…-1` in `…-10`.
    let name = format!("{PREFIX}{label}-{}-{n}z", *MARK);
    NAMES.with_borrow_mut(|names| names.push(name.clone()));
    name
}

/// Returns the names that this thread has made.
pub(crate) fn names_of_this_thread() -> Vec<String> {
    NAMES.with_borrow(Clone::clone)
}

/// A new directory with mode 0755, independent of the umask, removed on drop.
///
/// The parent is `MICROVM_TEST_DIR`, or else `/var/tmp` or `/tmp`: the first that allows devices and execution, so that
/// the directory may be a chroot base. Drop first unmounts every mount below the directory. If a mount stays, the
/// directory stays too, with a message, because a removal must never delete files through a mount.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes a directory with a name of [`unique`] (mkdir(2), chmod(2)).
    ///
    /// # Panics
    /// If a call fails.
    #[must_use]
    pub fn new(label: &str) -> Self {
        let path = place().join(unique(label));
        fs::create_dir(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o755)))
            .unwrap_or_else(|err| panic!("make scratch directory {}: {err}", path.display()));
        Self { path }
    }

    /// Returns the absolute path of the directory, which contains no symlinks.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the path of `name` below the directory; makes no file.
    #[must_use]
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path.join(name)
    }

    /// Makes the directory `name` below the scratch directory, with all parents, each with mode 0755.
    ///
    /// # Panics
    /// If a call fails.
    #[must_use]
    pub fn dir(&self, name: impl AsRef<Path>) -> PathBuf {
        let mut dir = self.path.clone();
        for part in name.as_ref() {
            dir.push(part);
            match fs::create_dir(&dir) {
                Ok(()) => fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)),
                Err(err) if err.kind() == std::io::ErrorKind::AlreadyExists => Ok(()),
                Err(err) => Err(err),
            }
            .unwrap_or_else(|err| panic!("make directory {}: {err}", dir.display()));
        }
        dir
    }

    /// Writes `bytes` to the file `name` below the directory, with mode 0644, and returns the path.
    ///
    /// # Panics
    /// If the file cannot be written.
    #[must_use]
    pub fn file(&self, name: impl AsRef<Path>, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, bytes)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(0o644)))
            .unwrap_or_else(|err| panic!("write {}: {err}", path.display()));
        path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // The latest mount covers earlier mounts: unmount in reverse order.
        for mount in mounts::below(&self.path).iter().rev() {
            if let Err(err) = umount2(mount, MntFlags::MNT_DETACH) {
                eprintln!("left behind: mount at {}: {err}", mount.display());
            }
        }
        if !mounts::below(&self.path).is_empty() {
            return;
        }
        match fs::remove_dir_all(&self.path) {
            Err(err) if err.kind() != std::io::ErrorKind::NotFound => {
                eprintln!("left behind: {}: {err}", self.path.display());
            }
            _ => {}
        }
    }
}

/// Returns the directory for scratch directories: the first with a sticky bit or closed mode, devices and execution.
pub(crate) fn place() -> PathBuf {
    if let Some(dir) = std::env::var_os(DIR_ENV) {
        return PathBuf::from(dir);
    }
    let fits = |dir: &Path| {
        let Ok(meta) = fs::symlink_metadata(dir) else {
            return false;
        };
        let closed = meta.mode() & 0o022 == 0 || meta.mode() & 0o1000 != 0;
        let usable = statvfs(dir)
            .is_ok_and(|fs| !fs.flags().intersects(FsFlags::ST_NODEV | FsFlags::ST_NOEXEC));
        meta.is_dir() && closed && usable
    };
    ["/var/tmp", "/tmp"]
        .into_iter()
        .map(PathBuf::from)
        .find(|dir| fits(dir))
        .unwrap_or_else(std::env::temp_dir)
}

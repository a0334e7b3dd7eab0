//! One jail's directory, held and locked: `<base>/<exec name>/<jail id>/` with `root/` and the record.

use std::collections::HashSet;
use std::path::Path;

use jail_cmd::{ExecName, JailId};
use jail_fs::{Dir, InodeId, Lease, Name, TrustedDir};

use crate::error::{Error, Result};
use crate::jail::record::Record;
use crate::sys::Errno;
use crate::sys::file::FileStat;

/// Name of the jail's root in the jail's directory.
pub(crate) const ROOT: &str = "root";

/// A jail with the lock of the directory, held by one descriptor.
#[derive(Debug)]
pub(crate) struct Jail(Lease);

impl Jail {
    /// Wraps the lock of a published jail.
    pub(crate) fn published(lock: Lease) -> Self {
        Self(lock)
    }

    /// Takes the lock of the jail `id` in `exec_dir`; `None` where there is no such jail.
    ///
    /// One launcher at a time owns a jail: [`Busy`](crate::ErrorKind::Busy) where another does.
    pub(crate) fn lock(exec_dir: &TrustedDir, id: &JailId) -> Result<Option<Self>> {
        let operation = || format!("lock the jail {id}");
        let name = Name::try_from(id.as_str())?;
        loop {
            let dir = match exec_dir.child(&name) {
                Ok(dir) => dir,
                Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::files(operation(), error)),
            };
            let lock = Lease::try_acquire(&dir);
            // Between the look-up and the lock a removal may have taken it away, or a restart put another in its place.
            match exec_dir.child(&name) {
                Ok(now) if now.id() == dir.id() => {
                    let lock = lock.map_err(|error| {
                        Error::files(operation(), error)
                            .hinted("Another launcher holds the jail, or a `Vm` of this launcher whose end was not observed: wait for that end")
                    })?;
                    return Ok(Some(Self(lock)));
                }
                Ok(_) => {}
                Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(Error::files(operation(), error)),
            }
        }
    }

    /// The jail's directory.
    pub(crate) fn dir(&self) -> &TrustedDir {
        self.0.dir()
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir().path()
    }

    pub(crate) fn record(&self) -> Result<Record> {
        Record::read(self.dir())
    }

    pub(crate) fn id(&self) -> Result<JailId> {
        let name = self.path().file_name().and_then(|name| name.to_str()).unwrap_or_default();
        Ok(name.parse()?)
    }
}

/// Opens `root/` in a jail's directory, and returns the directory and the inode; `None` if `root/` is missing.
pub(crate) fn open_root(dir: &TrustedDir) -> Result<Option<(Dir, InodeId)>> {
    let failed = |error| Error::files("open the jail's root", error);
    match jail_fs::open_dir(dir.dir(), ROOT) {
        Ok(root) => {
            let id = InodeId::of(&root).map_err(failed)?;
            Ok(Some((root, id)))
        }
        Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// Returns the mark of a jail on the leaf of the control group. The mark contains the base's inode, so that jails in
/// different bases never share a leaf.
pub(crate) fn leaf_mark(base: InodeId, exec_name: &str, jail_id: &str) -> String {
    format!("{base}/{exec_name}/{jail_id}")
}

/// The directories `<base>/<exec name>`.
#[derive(Debug, Default)]
pub(crate) struct ExecDirs {
    pub(crate) dirs: Vec<(ExecName, TrustedDir)>,
    /// Directories that could not be looked at: jails may be in them.
    pub(crate) problems: Vec<(Name, Error)>,
}

/// Opens the directories `<base>/<exec name>` of `base`. They are made once and stay; one that is gone is left out.
pub(crate) fn exec_dirs(base: &TrustedDir) -> Result<ExecDirs> {
    let mut found = ExecDirs::default();
    let names = base.entries().map_err(|error| Error::files("list the chroot base", error))?;
    for name in names {
        let Some(exec_name) = name
            .as_str()
            .filter(|name| !name.starts_with('.'))
            .and_then(|name| ExecName::new(name).ok())
        else {
            continue;
        };
        match base.child(&name) {
            Ok(dir) => found.dirs.push((exec_name, dir)),
            Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => {}
            // A file or a link holds no jails.
            Err(_) if !is_directory(base, &name) => {}
            Err(error) => {
                found.problems.push((name, Error::files("look for jails in", error)));
            }
        }
    }
    Ok(found)
}

fn is_directory(dir: &TrustedDir, name: &Name) -> bool {
    match FileStat::of_entry(dir.dir(), name.as_os_str()) {
        Ok(stat) => stat.is_dir(),
        Err(errno) => errno != Errno::NOENT,
    }
}

impl ExecDirs {
    /// Fails if `id` may have a jail in an unreadable directory. If a foreign mount covers a directory, only jails on
    /// the mount count.
    pub(crate) fn refuse_hidden(self, base: &TrustedDir, id: &JailId) -> Result<()> {
        for (name, failure) in self.problems {
            let shown = Path::new(name.as_os_str()).join(id.as_str());
            let is_foreign_mount = failure.kind() == crate::error::ErrorKind::Mounted
                && FileStat::of_entry(base.dir(), &shown).is_err_and(|errno| errno == Errno::NOENT);
            if !is_foreign_mount {
                return Err(failure);
            }
        }
        Ok(())
    }
}

/// The names of jails in a directory `<base>/<exec name>`.
pub(crate) fn ids_in(exec_dir: &TrustedDir) -> Result<Vec<(Name, JailId)>> {
    let names = exec_dir.entries().map_err(|error| Error::files("list the jails", error))?;
    let named = |name: Name| {
        let id = name.as_str()?.parse().ok()?;
        Some((name, id))
    };
    Ok(names.into_iter().filter_map(named).collect())
}

/// The inodes of the roots of all jails of `base` but for the one at `except`.
///
/// # Errors
/// If a directory or a jail cannot be looked at.
pub(crate) fn other_roots(base: &TrustedDir, except: &Path) -> Result<HashSet<InodeId>> {
    let mut roots = HashSet::new();
    for (_, exec_dir) in exec_dirs(base)?.dirs {
        for (name, _) in ids_in(&exec_dir)? {
            let dir = match exec_dir.child(&name) {
                Ok(dir) if dir.path() != except => dir,
                Ok(_) => continue,
                Err(error) if error.kind() == jail_fs::ErrorKind::NotFound => continue,
                Err(error) => return Err(Error::files("look at the other jails", error)),
            };
            roots.extend(open_root(&dir)?.map(|(_, id)| id));
        }
    }
    Ok(roots)
}

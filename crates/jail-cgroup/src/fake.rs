//! A tree of ordinary files that passes for a hierarchy, for unit tests. Each such test has its twin on a real hierarchy
//! in `tests/cgroup`.

#![expect(clippy::disallowed_methods, reason = "a fake kernel writes its files where it likes")]

use std::fs;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use tempfile::TempDir;

use crate::dir::Dir;
use crate::{Host, HostTexts, Version};

/// In each fake group: the version, then `<file> <content>` lines for the groups below it.
const KIND: &str = ".fake";

/// A fake mount, gone on drop.
pub(crate) struct Fake {
    dir: TempDir,
    version: Version,
    controllers: &'static str,
}

impl Fake {
    /// A hierarchy with `controllers`, comma-separated, whose groups have `files`, each `<name> <content>`.
    pub(crate) fn new(version: Version, controllers: &'static str, files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core: &[&str] = match version {
            Version::V1 => &["cgroup.procs ", "tasks "],
            Version::V2 => &[
                "cgroup.procs ",
                "cgroup.controllers ",
                "cgroup.subtree_control ",
                "cgroup.events populated 0",
                "cgroup.type domain",
            ],
        };
        let lines: Vec<_> = std::iter::once(&version.to_string()[..])
            .chain(core.iter().copied())
            .chain(files.iter().copied())
            .map(str::to_owned)
            .collect();
        fs::write(dir.path().join(KIND), lines.join("\n")).unwrap();
        write_files(dir.path(), &lines.join("\n"));
        Self { dir, version, controllers }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.path(name).exists()
    }

    fn mountinfo(&self) -> String {
        let point = self.dir.path().display();
        // What the point is mounted on: nothing covers it.
        let id = Dir::open_system(self.dir.path()).unwrap().mount_id().unwrap().unwrap_or(1);
        match self.version {
            Version::V1 => {
                format!("{id} 1 0:1 / {point} rw - cgroup cgroup rw,{}\n", self.controllers)
            }
            Version::V2 => format!("{id} 1 0:1 / {point} rw - cgroup2 cgroup2 rw\n"),
        }
    }
}

/// A host with these mounts only, and with one memory node of two CPUs.
pub(crate) fn host(fakes: &[&Fake]) -> Host {
    let mountinfo: String = fakes.iter().map(|fake| fake.mountinfo()).collect();
    let controllers = fakes
        .iter()
        .find(|fake| fake.version == Version::V2)
        .map(|fake| fake.controllers.replace(',', " "))
        .unwrap_or_default();
    Host::from_texts(&HostTexts {
        mountinfo: mountinfo.as_bytes(),
        controllers: &controllers,
        nodes: &[(0, "0-1")],
        ..HostTexts::default()
    })
}

/// The version that a directory plays; `None` for a real one.
pub(crate) fn version_of(dir: &Dir) -> Option<Version> {
    let kind = fs::read_to_string(dir.path().join(KIND)).ok()?;
    [Version::V1, Version::V2].into_iter().find(|version| kind.starts_with(&version.to_string()))
}

/// Sets an extended attribute of a fake group, which any user may; `None` for a real directory.
pub(crate) fn mark(dir: &Dir, name: &str, value: &[u8]) -> Option<Result<(), Errno>> {
    version_of(dir)?;
    let path = dir.path().join(format!(".{name}"));
    if path.exists() {
        return Some(Err(Errno::EXIST));
    }
    fs::write(path, value).unwrap();
    Some(Ok(()))
}

/// Reads an extended attribute of a fake group; `None` for a real directory.
pub(crate) fn attribute(dir: &Dir, name: &str) -> Option<Option<Vec<u8>>> {
    version_of(dir)?;
    Some(fs::read(dir.path().join(format!(".{name}"))).ok())
}

/// What the kernel does when a group is made.
pub(crate) fn fill(dir: &Dir) {
    let parent = dir.path().parent().unwrap();
    if let Ok(kind) = fs::read_to_string(parent.join(KIND)) {
        write_files(dir.path(), &kind);
    }
}

fn write_files(dir: &Path, kind: &str) {
    fs::write(dir.join(KIND), kind).unwrap();
    for line in kind.lines().skip(1) {
        let (name, content) = line.split_once(' ').unwrap();
        fs::write(dir.join(name), content).unwrap();
    }
}

/// What the kernel does not mind when a group is removed.
pub(crate) fn empty(dir: &Dir) {
    if version_of(dir).is_none() {
        return;
    }
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            fs::remove_file(path).unwrap();
        }
    }
}

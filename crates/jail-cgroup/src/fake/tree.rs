//! Fake mounts for unit tests. Each such test names a twin on a real hierarchy, in `tests/cgroup`.

#![expect(clippy::disallowed_methods, reason = "a fake kernel writes its files freely")]

use std::fs;
use std::path::PathBuf;

use tempfile::TempDir;

use super::kernel::{KIND, write_files};
use crate::dir::Dir;
use crate::{CgroupVersion, Host, HostTexts};

/// Fake mount, removed on drop.
pub(crate) struct Fake {
    dir: TempDir,
    version: CgroupVersion,
    controllers: &'static str,
}

impl Fake {
    /// Makes a hierarchy with `controllers`, comma-separated. Each group has `files`, each `<name> <content>`.
    pub(crate) fn new(version: CgroupVersion, controllers: &'static str, files: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let core: &[&str] = match version {
            CgroupVersion::V1 => &["cgroup.procs ", "tasks "],
            CgroupVersion::V2 => &[
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
        // The id of the mount below: nothing covers this one.
        let id = Dir::open_system(self.dir.path()).unwrap().mount_id().unwrap().unwrap_or(1);
        match self.version {
            CgroupVersion::V1 => {
                format!("{id} 1 0:1 / {point} rw - cgroup cgroup rw,{}\n", self.controllers)
            }
            CgroupVersion::V2 => format!("{id} 1 0:1 / {point} rw - cgroup2 cgroup2 rw\n"),
        }
    }
}

/// Returns a host with these mounts only, and with one memory node of two CPUs.
pub(crate) fn host(fakes: &[&Fake]) -> Host {
    let mountinfo: String = fakes.iter().map(|fake| fake.mountinfo()).collect();
    let controllers = fakes
        .iter()
        .find(|fake| fake.version == CgroupVersion::V2)
        .map(|fake| fake.controllers.replace(',', " "))
        .unwrap_or_default();
    Host::from_texts(&HostTexts {
        mountinfo: mountinfo.as_bytes(),
        controllers: &controllers,
        nodes: &[(0, "0-1")],
        ..HostTexts::default()
    })
}

//! A search for remains of a VM on the host.

use std::fs;
use std::path::{Path, PathBuf};

use super::Left;

/// The marks of a VM's remains.
#[derive(Debug)]
pub(super) struct Traces<'a> {
    /// The chroot base.
    pub(super) base: &'a Path,
    /// The parent of the VM's control groups.
    pub(super) cgroup_parent: &'a str,
    /// The uid that only the VM used.
    pub(super) uid: u32,
}

impl Traces<'_> {
    /// Searches files, mounts, loop devices, control groups and processes.
    pub(super) fn look(&self) -> Vec<Left> {
        let in_base = |path: &Path| path.starts_with(self.base);
        let left = |what: &str, place: &str, found: Vec<String>| Left {
            what: what.to_owned(),
            place: place.to_owned(),
            found,
        };
        let mounts = testkit::mounts::all()
            .into_iter()
            .map(|mount| mount.point)
            .filter(|point| in_base(point));
        let loops = entries(Path::new("/sys/block")).into_iter().filter(|device| {
            let file = fs::read_to_string(device.join("loop/backing_file")).unwrap_or_default();
            in_base(Path::new(file.trim()))
        });
        let groups =
            testkit::hierarchies().into_iter().map(|hierarchy| hierarchy.join(self.cgroup_parent));
        let groups: Vec<PathBuf> = groups.filter(|group| group.exists()).collect();
        let hierarchies = testkit::hierarchies().len();
        vec![
            left(
                "files",
                &self.base.display().to_string(),
                shown(self.base.exists().then(|| self.base.to_owned())),
            ),
            left("mounts", "/proc/self/mountinfo", shown(mounts)),
            left("loop devices", "/sys/block", shown(loops)),
            left("control groups", &format!("{hierarchies} hierarchies"), shown(groups)),
            left("processes", &format!("/proc, of uid {}", self.uid), shown(self.processes())),
        ]
    }

    /// Returns the processes with our uid as any of the four uids. A zombie does not count: init reaps the zombies of a
    /// dead launcher.
    fn processes(&self) -> Vec<PathBuf> {
        let uid = self.uid.to_string();
        let runs_as_it = |process: &PathBuf| {
            let status = fs::read_to_string(process.join("status")).unwrap_or_default();
            let field = |name: &str| {
                status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default()
            };
            !field("State:").trim_start().starts_with('Z')
                && field("Uid:").split_whitespace().any(|one| one == uid)
        };
        entries(Path::new("/proc")).into_iter().filter(runs_as_it).collect()
    }
}

fn shown(paths: impl IntoIterator<Item = PathBuf>) -> Vec<String> {
    paths.into_iter().map(|path| path.display().to_string()).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leftovers_are_found() {
        let base = tempfile::tempdir().unwrap();
        let uid = nix::unistd::getuid().as_raw();
        let look = |base: &Path, uid| Traces { base, cgroup_parent: "microvm-none", uid }.look();
        let found = |left: Vec<Left>| -> Vec<String> {
            left.into_iter().filter(|left| !left.found.is_empty()).map(|left| left.what).collect()
        };
        assert_eq!(found(look(base.path(), uid)), ["files", "processes"]);
        let gone = base.path().join("gone");
        assert!(found(look(&gone, 4_000_000_000)).is_empty());
    }
}

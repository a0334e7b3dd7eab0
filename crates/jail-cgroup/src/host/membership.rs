//! The groups of a process: `/proc/<pid>/cgroup` (cgroups(7)).

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use crate::dir::Dir;
use crate::{CgroupVersion, Controller};

/// Reads the controllers that v1 hierarchies hold, mounted or not; none if the file cannot be read.
pub(crate) fn read_bound_to_v1() -> Vec<Controller> {
    let text = Dir::open_system("/proc/thread-self").and_then(|proc| proc.read("cgroup"));
    bound_to_v1(&text.unwrap_or_default())
}

/// Returns the controllers that v1 hierarchies hold. Lines that no kernel writes are skipped.
pub(crate) fn bound_to_v1(text: &[u8]) -> Vec<Controller> {
    let bound = |controller: &Controller| {
        entries(text).any(|(names, _)| has(names, controller.name(CgroupVersion::V1)))
    };
    Controller::ALL.into_iter().filter(bound).collect()
}

/// Returns the path of the process's group in the v2 hierarchy, or in the v1 hierarchy of one of `controllers`.
pub(crate) fn path_of(
    text: &[u8],
    version: CgroupVersion,
    controllers: &[Controller],
) -> Option<PathBuf> {
    let (_, path) = entries(text).find(|(names, _)| match version {
        CgroupVersion::V1 => {
            controllers.iter().any(|controller| has(names, controller.name(version)))
        }
        CgroupVersion::V2 => names.is_empty(),
    })?;
    let path = path.strip_suffix(b" (deleted)").unwrap_or(path);
    Some(OsString::from_vec(path.to_vec()).into())
}

/// Yields names and path of `4:cpu,cpuacct:/path`. The line of v2 has no names.
fn entries(text: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    text.split(|byte| *byte == b'\n').filter_map(|line| {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let _number: u32 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        Some((fields.next()?, fields.next().filter(|path| path.starts_with(b"/"))?))
    })
}

fn has(names: &[u8], wanted: &str) -> bool {
    names.split(|byte| *byte == b',').any(|name| name == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_the_kernels() {
        let text =
            b"12:cpu,cpuacct:/a:b\n4:name=systemd:/x\n1:blkio:/\n0::/user\xff.slice (deleted)\n\
            x:memory:/\n7:pids\n3:freezer:relative\n";
        let bound = bound_to_v1(text);
        assert_eq!(bound, [Controller::Cpu, Controller::Cpuacct, Controller::Io]);
        let path = |version, controller| {
            path_of(text, version, &[controller]).map(|path| path.into_os_string().into_vec())
        };
        assert_eq!(path(CgroupVersion::V1, Controller::Cpuacct).unwrap(), b"/a:b");
        assert_eq!(path(CgroupVersion::V2, Controller::Memory).unwrap(), b"/user\xff.slice");
        assert_eq!(path(CgroupVersion::V1, Controller::Memory), None);
    }
}

//! Which hierarchies there are, by the groups a process is in: `/proc/<pid>/cgroup` (cgroups(7)).

use crate::{Controller, Version};

/// The controllers that v1 hierarchies hold, mounted or not. Lines not of the kernel's making are passed over.
pub(crate) fn bound_to_v1(text: &[u8]) -> Vec<Controller> {
    let lists: Vec<_> = text.split(|byte| *byte == b'\n').filter_map(controllers).collect();
    let bound = |controller: &Controller| {
        let name = controller.name(Version::V1);
        lists.iter().any(|list| list.split(',').any(|other| other == name))
    };
    Controller::ALL.into_iter().filter(bound).collect()
}

/// Of `4:cpu,cpuacct:/path`; v2's line has none.
fn controllers(line: &[u8]) -> Option<&str> {
    let mut fields = line.splitn(3, |byte| *byte == b':');
    let _number: u32 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let controllers = std::str::from_utf8(fields.next()?).ok()?;
    fields.next()?.starts_with(b"/").then_some(controllers)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_the_kernels() {
        let text = b"12:cpu,cpuacct:/a:b\n4:name=systemd:/x\n1:blkio:/\n0::/user.slice (deleted)\n\
            x:memory:/\n7:pids\n3:freezer:relative\n";
        let bound = bound_to_v1(text);
        assert_eq!(bound, [Controller::Cpu, Controller::Cpuacct, Controller::Io]);
    }

    proptest! {
        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            bound_to_v1(&text);
        }

        #[test]
        fn nearly_right_lines_do_not_either(text in "([0-9]{1,11}:[a-z,=]{0,9}:[/:a ()\\n]{0,9}){0,5}") {
            bound_to_v1(text.as_bytes());
        }
    }
}

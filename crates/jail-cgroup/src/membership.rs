//! Which groups a process is in: `/proc/<pid>/cgroup` (cgroups(7)).

use crate::{Controller, Version};

/// One line: the process's group in one hierarchy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Membership<'a> {
    /// Empty for v2.
    controllers: &'a str,
    /// Is this v2's line?
    unified: bool,
    /// From the hierarchy's root, or the reader's control group namespace's; ` (deleted)` behind it where it is gone.
    path: &'a [u8],
}

impl<'a> Membership<'a> {
    /// All lines; those not of the kernel's making are passed over.
    pub(crate) fn parse_all(text: &'a [u8]) -> impl Iterator<Item = Self> {
        text.split(|byte| *byte == b'\n').filter_map(Self::parse)
    }

    fn parse(line: &'a [u8]) -> Option<Self> {
        let mut fields = line.splitn(3, |byte| *byte == b':');
        let number: u32 = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
        let controllers = std::str::from_utf8(fields.next()?).ok()?;
        let path = fields.next()?;
        let unified = number == 0 && controllers.is_empty();
        path.starts_with(b"/").then_some(Self { controllers, unified, path })
    }

    pub(crate) fn has(&self, controller: Controller) -> bool {
        self.controllers.split(',').any(|name| name == controller.name(Version::V1))
    }

    /// Whether it is the line of the hierarchy of that version with any of these controllers.
    pub(crate) fn is_of(&self, version: Version, controllers: &[Controller]) -> bool {
        match version {
            Version::V1 => controllers.iter().any(|controller| self.has(*controller)),
            Version::V2 => self.unified,
        }
    }

    pub(crate) fn path(&self) -> &'a [u8] {
        self.path
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lines_are_the_kernels() {
        let text = b"12:cpu,cpuacct:/a:b\n4:name=systemd:/x\n1:blkio:/\n0::/user.slice (deleted)\n\
            x:y:z\n7:pids\n0::relative\n";
        let lines: Vec<_> = Membership::parse_all(text).collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[0].has(Controller::Cpu) && lines[0].has(Controller::Cpuacct));
        assert_eq!(lines[0].path(), b"/a:b");
        assert!(!lines[1].unified && Controller::ALL.iter().all(|c| !lines[1].has(*c)));
        assert!(lines[2].is_of(Version::V1, &[Controller::Io]));
        assert!(lines[3].is_of(Version::V2, &[]));
        assert_eq!(lines[3].path(), b"/user.slice (deleted)");
    }

    proptest! {
        #[test]
        fn no_text_panics(text in proptest::collection::vec(any::<u8>(), 0..200)) {
            for line in Membership::parse_all(&text) {
                prop_assert!(line.path().starts_with(b"/"));
            }
        }

        #[test]
        fn nearly_right_lines_do_not_either(text in "([0-9]{1,11}:[a-z,=]{0,9}:[/:a ()\\n]{0,9}){0,5}") {
            prop_assert!(Membership::parse_all(text.as_bytes()).all(|line| line.path()[0] == b'/'));
        }
    }
}

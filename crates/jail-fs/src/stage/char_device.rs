//! Character device nodes.

use std::fmt;

use cap_std::fs::Dir;

use super::new_inode::{Device, NewInode, take_back};
use crate::base::refused_at;
use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno, FileType};

/// The outcome of [`ensure_char_device`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ensured {
    /// The call made the node.
    Made,
    /// The right node existed, and is unchanged.
    Found,
}

impl fmt::Display for Ensured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Made => "made",
            Self::Found => "found",
        })
    }
}

/// Makes the character device node `name` in `dir` (`mknodat(2)`), or accepts an existing node with these numbers.
///
/// An existing node keeps its owner and mode: only a node that this call makes is given to `owner`. If another process
/// makes the right node first, that is as good.
///
/// # Errors
/// [`Untrusted`](ErrorKind::Untrusted) if anything else has the name; [`Privilege`](ErrorKind::Privilege) without
/// `CAP_MKNOD`, which the error names.
///
/// # Privileges
/// `CAP_MKNOD`, and `CAP_CHOWN` if `owner` is not the caller.
pub fn ensure_char_device(
    dir: &Dir,
    name: &Name,
    major: u32,
    minor: u32,
    owner: Owner,
    mode: u32,
) -> Result<Ensured> {
    // Looked at first, so that finding the right node takes no privilege.
    if let Some(found) = existing(dir, name, (major, minor))? {
        return Ok(found);
    }
    let device = Device { kind: FileType::CharacterDevice, major, minor };
    match NewInode::node(dir, name, device, mode) {
        Ok(node) => {
            node.give((dir, name), owner, mode)
                .map_err(|error| error.after(take_back(dir, name)))?;
            Ok(Ensured::Made)
        }
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            existing(dir, name, (major, minor))?.ok_or(error)
        }
        Err(error) => Err(error),
    }
}

fn existing(dir: &Dir, name: &Name, numbers: (u32, u32)) -> Result<Option<Ensured>> {
    let operation = "accept device node";
    let place = || sys::path_of(dir).join(name);
    let fd = match sys::handle(dir, name.as_os_str()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(refused_at(operation, place(), errno)),
    };
    let facts = Facts::of(fd)?;
    let (major, minor) = facts.rdev;
    let because = match facts.kind {
        FileType::CharacterDevice if facts.rdev == numbers => return Ok(Some(Ensured::Found)),
        FileType::CharacterDevice => {
            format!("it is device {major}:{minor}, not {}:{}", numbers.0, numbers.1)
        }
        _ => format!("it is {}, no character device", facts.noun()),
    };
    Err(Error::new(ErrorKind::Untrusted, operation, place())
        .because(because)
        .hinted("Remove this file, then try again."))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;
    use crate::testing::held;

    #[test]
    fn device_numbers_match_glibc() {
        assert_eq!(makedev(10, 232), 0xae8);
        assert_eq!(makedev(10, 200), 0xac8);
        assert_eq!(makedev(0x1234_5678, 0x9abc_def0), 0x1234_59ab_cde6_78f0);
    }

    #[test]
    fn refuses_other_files() {
        let (tmp, dir) = held();
        std::fs::write(tmp.path().join("kvm"), "").unwrap();
        let name = Name::try_from("kvm").unwrap();
        let error = ensure_char_device(&dir, &name, 10, 232, Owner::caller(), 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("a regular file"), "{error}");
    }
}

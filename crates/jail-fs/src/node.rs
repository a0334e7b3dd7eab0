//! Character device nodes.

use cap_std::fs::Dir;
use nix::errno::Errno;
use rustix::fs::FileType;

use crate::error::{Error, ErrorKind, Result, locate};
use crate::fresh::{Device, Fresh, take_back};
use crate::inode::Facts;
use crate::name::Name;
use crate::open;
use crate::owner::Owner;

/// Whether a call made what it was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ensured {
    /// It did.
    Made,
    /// It was there already, and was left as it is.
    Found,
}

/// Makes the character device node `name` in `dir` (`mknod(2)`), or accepts the one that is there with these numbers.
///
/// An existing node keeps its owner and mode: only what this call makes is given to `owner`. If someone else makes the
/// right node first, that is as good.
///
/// # Errors
/// [`Untrusted`](ErrorKind::Untrusted) where anything else has the name; [`Privilege`](ErrorKind::Privilege) without
/// `CAP_MKNOD`, which the error names.
///
/// # Privileges
/// `CAP_MKNOD`, and `CAP_CHOWN` where `owner` is not the caller.
pub fn ensure_char_device(
    dir: &Dir,
    name: &Name,
    major: u32,
    minor: u32,
    owner: Owner,
    mode: u32,
) -> Result<Ensured> {
    // Looked at first, so that finding the right one takes no privilege.
    if let Some(found) = existing(dir, name, (major, minor))? {
        return Ok(found);
    }
    let device = Device { kind: FileType::CharacterDevice, major, minor };
    match Fresh::node(dir, name, device, mode) {
        Ok(node) => {
            node.give((dir, name), owner, mode).inspect_err(|_| take_back(dir, name))?;
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
    let fd = match open::handle(dir, name.as_ref()) {
        Ok(fd) => fd,
        Err(Errno::ENOENT) => return Ok(None),
        Err(errno) => return Err(open::refused(operation, dir, name.as_ref(), errno)),
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
    Err(Error::new(ErrorKind::Untrusted, operation, locate(dir).join(name))
        .because(because)
        .hinted("remove it"))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use nix::sys::stat::makedev;

    use super::*;
    use crate::testing::held;

    #[test]
    fn numbers_are_encoded_as_glibc_does() {
        assert_eq!(makedev(10, 232), 0xae8);
        assert_eq!(makedev(10, 200), 0xac8);
        assert_eq!(makedev(0x1234_5678, 0x9abc_def0), 0x1234_59ab_cde6_78f0);
    }

    #[test]
    fn anything_else_in_its_place_is_an_error() {
        let (tmp, dir) = held();
        std::fs::write(tmp.path().join("kvm"), "").unwrap();
        let name = Name::try_from("kvm").unwrap();
        let error = ensure_char_device(&dir, &name, 10, 232, Owner::caller(), 0o600).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.to_string().contains("a regular file"), "{error}");
    }
}

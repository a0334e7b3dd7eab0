//! FIFOs: made while a tree is staged, and opened later without a wait.

use std::os::fd::OwnedFd;
use std::path::Path;

use cap_std::fs::Dir;

use super::block_device::Access;
use super::new_inode::{Device, NewInode, take_back};
use super::staging_dir::StagingDir;
use crate::base::{expect_below, refused_at};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, FileType};

/// Makes the FIFO `name` in `dir` with this owner and mode (`mknodat(2)`, `S_IFIFO`).
///
/// # Errors
/// [`AlreadyExists`](ErrorKind::AlreadyExists); what mknodat, fchownat and fchmodat answer.
///
/// # Privileges
/// `CAP_CHOWN` if `owner` is not the caller.
pub fn make_fifo<'a>(
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    owner: Owner,
    mode: u32,
) -> Result<()> {
    let dir = dir.into().dir();
    let device = Device { kind: FileType::Fifo, major: 0, minor: 0 };
    let fifo = NewInode::node(dir, name, device, mode)?;
    fifo.give((dir, name), owner, mode).map_err(|error| error.after(take_back(dir, name)))
}

/// Opens the FIFO `path` below `dir` (`openat2(2)` as [`open_dir`](crate::open_dir) does, then `open(2)` through
/// `/proc/self/fd`), non-blocking: the call never waits for the other end, nor do reads and writes.
///
/// The inode is examined before it is opened, so nothing but a FIFO is ever opened in a tree that somebody else owns.
///
/// # Errors
/// [`NotFound`](ErrorKind::NotFound); [`Untrusted`](ErrorKind::Untrusted) for anything else than a FIFO.
pub fn open_fifo(dir: &Dir, path: impl AsRef<Path>, access: Access) -> Result<OwnedFd> {
    let (operation, path) = ("open FIFO", path.as_ref());
    expect_below(operation, path)?;
    let place = || sys::path_of(dir).join(path);
    let failed = |errno| refused_at(operation, place(), errno);
    let held = sys::handle(dir, path.as_os_str()).map_err(failed)?;
    let facts = Facts::of_open(&held).map_err(failed)?;
    if facts.kind != FileType::Fifo {
        return Err(Error::new(ErrorKind::Untrusted, operation, place())
            .because(format!("it is {}", facts.noun())));
    }
    sys::reopen_fifo(&held, access == Access::ReadWrite).map_err(failed)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;
    use crate::testing::held;

    fn name(name: &str) -> Name {
        Name::try_from(name).unwrap()
    }

    #[test]
    fn fifo_mode_ignores_umask() {
        let (tmp, dir) = held();
        make_fifo(&dir, &name("fifo"), Owner::caller(), 0o622).unwrap();
        let mode = std::fs::metadata(tmp.path().join("fifo")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o622, "whatever the umask is");
        let again = make_fifo(&dir, &name("fifo"), Owner::caller(), 0o600).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn opening_a_fifo_never_waits() {
        let (_tmp, dir) = held();
        make_fifo(&dir, &name("fifo"), Owner::caller(), 0o600).unwrap();
        let reader = open_fifo(&dir, "fifo", Access::ReadOnly).unwrap();
        assert_eq!(nix::unistd::read(&reader, &mut [0; 4]), Ok(0), "no writer has come yet");
        let writer = open_fifo(&dir, "fifo", Access::ReadWrite).unwrap();
        nix::unistd::write(&writer, b"line").unwrap();
        assert_eq!(nix::unistd::read(&reader, &mut [0; 8]), Ok(4));
    }

    #[test]
    fn refuses_anything_but_a_fifo() {
        let (tmp, dir) = held();
        make_fifo(&dir, &name("fifo"), Owner::caller(), 0o600).unwrap();
        symlink("fifo", tmp.path().join("link")).unwrap();
        std::fs::write(tmp.path().join("file"), "").unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(tmp.path().join("socket")).unwrap();
        for bad in ["link", "file", "socket", "."] {
            let error = open_fifo(&dir, bad, Access::ReadOnly).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Untrusted, "{bad}: {error}");
        }
        assert_eq!(
            open_fifo(&dir, "none", Access::ReadOnly).unwrap_err().kind(),
            ErrorKind::NotFound
        );
    }
}

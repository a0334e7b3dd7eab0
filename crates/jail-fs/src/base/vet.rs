//! Rule 5 of the threat model, for one directory.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::error::{Error, ErrorKind, Result};
use crate::inode::Facts;
use crate::owner::Owner;
use crate::sys::{self, Errno, FileType};

/// The extended attribute that children of a directory inherit.
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// The uid and gid that stand for every owner without a mapping in the caller's user namespace.
const UNMAPPED: u32 = 65_534;

/// Checks rule 5 for a base or an ancestor of a base. `last` means the base itself.
pub(crate) fn vet(
    operation: &'static str,
    path: &Path,
    fd: &OwnedFd,
    caller: Owner,
    last: bool,
) -> Result<Facts> {
    let facts = Facts::of_open(fd).map_err(|errno| Error::os(operation, path, errno))?;
    let refuse = |because: String, hint| {
        Err(Error::new(ErrorKind::Untrusted, operation, path).because(because).hinted(hint))
    };
    if facts.kind != FileType::Directory {
        return refuse(format!("it is {}", facts.noun()), "Name a directory.");
    }
    if facts.uid != 0 && facts.uid != caller.uid() {
        let hint = match facts.uid {
            UNMAPPED => {
                "Its owner may have no mapping in this user namespace; choose a directory of a mapped owner."
            }
            _ => "Choose a directory of root's, or chown it to root.",
        };
        return refuse(format!("it belongs to uid {}", facts.uid), hint);
    }
    if facts.mode & 0o2000 != 0 {
        return refuse("it has the set-group-id bit".to_owned(), "Remove the bit: chmod g-s.");
    }
    match sys::has_xattr(fd, DEFAULT_ACL) {
        Ok(false) => Ok(facts),
        // Opened with O_PATH: the directory cannot be listed, and nothing will be made in it.
        Err(Errno::EBADF) if !last => Ok(facts),
        Ok(true) => refuse("it has a default ACL".to_owned(), "Remove the ACL: setfacl -k."),
        Err(errno) => Err(Error::os(operation, path, errno)),
    }
}

/// Checks that only the owner can write to a directory.
pub(crate) fn refuse_writable(operation: &'static str, path: &Path, facts: &Facts) -> Result<()> {
    if facts.mode & 0o022 == 0 {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Untrusted, operation, path)
        .because(format!("others than its owner can write to it (mode {:04o})", facts.mode))
        .hinted("Remove the permission (chmod go-w), or choose another directory."))
}

//! The end of a loan: a persistent file has its owner and mode again.

use cap_std::fs::Dir;
use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{Gid, Uid, fchown};
use rustix::fs::{FileType, fremovexattr};

use crate::artifact::Artifact;
use crate::error::{Error, ErrorKind, Result, errno, locate};
use crate::inode::{ACL, Facts, InodeId};
use crate::open;
use crate::receipt::{Loan, Receipt};
use crate::scrub::scrub;

const OPERATION: &str = "return persistent file";

/// Returns the file that [`persistent`](crate::persistent) staged into `dir`: restores the owner and the mode that
/// `receipt` recorded, then removes the receipt's name from `dir`.
///
/// Owner and mode are changed through a descriptor of the recorded inode (`fchown(2)`, `fchmod(2)`), and an ACL that the
/// tree's owner added is removed. The inode is looked for under its name in `dir`, and under the path of the source if
/// the tree's owner has moved or removed that name. Call this while nothing runs in the tree and before the tree is
/// removed. A second call is fine.
///
/// A file that has changed owner again since it was lent is left as it is.
///
/// # Errors
/// [`Replaced`](ErrorKind::Replaced) if neither place holds the recorded inode, so that its owner cannot be restored;
/// what open(2), fchown(2), fchmod(2) and unlinkat(2) answer.
///
/// # Privileges
/// `CAP_CHOWN` and `CAP_FOWNER` where the owner was changed.
pub fn return_persistent(dir: &Dir, receipt: &Receipt) -> Result<()> {
    let lent = lent_here(dir, receipt)?;
    let is_here = lent.is_some();
    if let Some(loan) = &receipt.loan {
        let file = match lent {
            Some(file) => file,
            None => lent_there(dir, loan, receipt)?,
        };
        restore(&file, loan)?;
    }
    if is_here {
        scrub(dir, std::slice::from_ref(&receipt.name))?;
    }
    Ok(())
}

/// A regular file, opened, and where it was found.
struct Lent {
    fd: std::os::fd::OwnedFd,
    path: std::path::PathBuf,
}

/// The recorded inode under its name in the tree.
fn lent_here(dir: &Dir, receipt: &Receipt) -> Result<Option<Lent>> {
    let name = receipt.name.as_os_str();
    let path = || locate(dir).join(name);
    let is_it = |facts: &Facts| facts.id == receipt.inode && facts.kind == FileType::RegularFile;
    // Looked at before it is opened for reading: anything may have the name.
    let failed = |errno| open::refused_at(OPERATION, path(), errno);
    match open::handle(dir, name) {
        Ok(fd) if is_it(&Facts::of(&fd)?) => {}
        Ok(_) | Err(Errno::ENOENT | Errno::ELOOP | Errno::EXDEV) => return Ok(None),
        Err(errno) => return Err(failed(errno)),
    }
    let fd = open::beneath(dir, name.as_ref(), OFlag::O_RDONLY, Mode::empty()).map_err(failed)?;
    let facts = Facts::of(&fd)?;
    Ok(is_it(&facts).then(|| Lent { fd, path: path() }))
}

/// The recorded inode under the path that it was staged from.
fn lent_there(dir: &Dir, loan: &Loan, receipt: &Receipt) -> Result<Lent> {
    let refuse = |found: &str| {
        let place = locate(dir).join(&receipt.name);
        Error::new(ErrorKind::Replaced, OPERATION, loan.path())
            .because(format!(
                "it is not inode {} any more but {found}, and neither is {}",
                receipt.inode,
                crate::text::Escaped(&place)
            ))
            .hinted("chown the file that was lent yourself")
    };
    match Artifact::open(loan.path()) {
        Ok(source) if source.facts().id == receipt.inode => {
            Ok(Lent { fd: source.into_fd(), path: loan.path().to_owned() })
        }
        Ok(source) => Err(refuse(&format!("inode {}", InodeId::of(&source)?))),
        Err(error) if error.kind() == ErrorKind::NotFound => Err(refuse("gone")),
        Err(error) if error.kind() == ErrorKind::Untrusted => Err(refuse("something else")),
        Err(error) => Err(error),
    }
}

fn restore(file: &Lent, loan: &Loan) -> Result<()> {
    let failed = |operation, errno| Error::os(operation, &file.path, errno);
    let facts = Facts::of_open(&file.fd).map_err(|errno| failed("examine", errno))?;
    // Given to someone else since: not ours to take.
    if facts.uid != loan.user.uid() {
        return Ok(());
    }
    // The owner first: then nobody else can change the rest, and the kernel has cleared set-id bits and capabilities.
    let (uid, gid) = (Uid::from_raw(loan.owner.uid()), Gid::from_raw(loan.owner.gid()));
    fchown(&file.fd, Some(uid), Some(gid)).map_err(|errno| failed("change owner of", errno))?;
    match fremovexattr(&file.fd, ACL).map_err(errno) {
        Ok(()) | Err(Errno::ENODATA | Errno::EOPNOTSUPP) => {}
        Err(errno) => return Err(failed("remove the ACL of", errno)),
    }
    fchmod(&file.fd, Mode::from_bits_truncate(loan.mode))
        .map_err(|errno| failed("change mode of", errno))
}

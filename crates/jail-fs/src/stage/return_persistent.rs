//! The end of a loan: a persistent file has its owner and mode again.

use cap_std::fs::Dir;

use super::artifact::Artifact;
use super::lent::{Lent, lent_here};
use super::new_inode::take_back;
use super::receipt::{Loan, Receipt};
use crate::error::{Error, ErrorKind, Result};
use crate::inode::{ACL, Facts};
use crate::sys;
use crate::text::Escaped;

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
        take_back(dir, &receipt.name)?;
    }
    Ok(())
}

/// Opens the recorded inode by the path of the source.
fn lent_there(dir: &Dir, loan: &Loan, receipt: &Receipt) -> Result<Lent> {
    let refuse = |found: &str| {
        let place = sys::path_of(dir).join(&receipt.name);
        Error::new(ErrorKind::Replaced, OPERATION, loan.path())
            .because(format!(
                "it is not inode {} any more but {found}, and neither is {}",
                receipt.inode,
                Escaped(&place)
            ))
            .hinted("Find the file by its inode, and chown it to its owner.")
    };
    match Artifact::open(loan.path()) {
        Ok(source) if source.facts().id == receipt.inode => {
            Ok(Lent { fd: source.into_fd(), path: loan.path().to_owned() })
        }
        Ok(source) => Err(refuse(&format!("inode {}", source.facts().id))),
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
    sys::set_owner(&file.fd, (loan.owner.uid(), loan.owner.gid()))
        .map_err(|errno| failed("change owner of", errno))?;
    sys::remove_xattr(&file.fd, ACL).map_err(|errno| failed("remove the ACL of", errno))?;
    sys::set_mode(&file.fd, loan.mode).map_err(|errno| failed("change mode of", errno))
}

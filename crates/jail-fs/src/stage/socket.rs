//! A Unix socket that a process of the host listens on.

use super::artifact::Artifact;
use super::receipt::{Receipt, Strategy};
use super::staging_dir::StagingDir;
use crate::error::{Error, ErrorKind, Result};
use crate::name::Name;
use crate::owner::Owner;
use crate::sys::{self, Errno, FileType};

/// Stages the socket `source` as `name` in `dir`, for `user` to connect to (`linkat(2)`): the very socket, never changed.
///
/// A connection needs write permission: the socket must be `user`'s, or writable by `user`'s group or by everybody. Open
/// the source with [`Artifact::open_socket`].
///
/// # Errors
/// [`Untrusted`](ErrorKind::Untrusted) for a source that is no socket, or that `user` may not connect to;
/// [`AlreadyExists`](ErrorKind::AlreadyExists) for a taken name; [`Unsupported`](ErrorKind::Unsupported) if the socket is
/// on another filesystem than `dir`.
pub fn socket<'a>(
    source: &Artifact,
    dir: impl Into<StagingDir<'a>>,
    name: &Name,
    user: Owner,
) -> Result<Receipt> {
    let operation = "stage socket";
    let dir = dir.into().dir();
    let facts = source.facts();
    let refused = |because: String, hint| {
        Err(Error::new(ErrorKind::Untrusted, operation, source.path())
            .because(because)
            .hinted(hint))
    };
    if facts.kind != FileType::Socket {
        return refused(format!("it is {}", facts.noun()), "Name the socket of a backend.");
    }
    if facts.rights(user) & 0o2 == 0 {
        return refused(
            format!("uid {}, gid {} may not write to it", user.uid(), user.gid()),
            "Give the socket to that uid or gid, with write permission.",
        );
    }
    match sys::link(source, dir, name.as_os_str()) {
        Ok(()) => Ok(Receipt {
            name: name.clone(),
            strategy: Strategy::HardLink,
            fallback: None,
            bytes_copied: 0,
            inode: facts.id,
            source: source.stamp(),
            loan: None,
        }),
        Err(Errno::EXDEV) => Err(Error::new(ErrorKind::Unsupported, operation, source.path())
            .because("it is on another filesystem than the tree")
            .hinted("Let the backend listen on the filesystem of the trees.")),
        Err(errno) => Err(Error::at(operation, dir, name, errno)),
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "the tests set their scene by path")]
mod tests {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;
    use crate::testing::held;

    #[test]
    fn the_very_socket_is_linked() {
        let (tmp, dir) = held();
        let path = tmp.path().join("backend");
        let _listener = UnixListener::bind(&path).unwrap();
        let source = Artifact::open_socket(&path).unwrap();
        let name = Name::try_from("drive").unwrap();
        let receipt = socket(&source, &dir, &name, Owner::caller()).unwrap();
        assert_eq!(receipt.strategy, Strategy::HardLink);
        UnixStream::connect(tmp.path().join("drive")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().nlink(), 2);
        let error = socket(&source, &dir, &name, Owner::caller()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }

    #[test]
    fn odd_sockets_are_refused() {
        let (tmp, dir) = held();
        let path = tmp.path().join("backend");
        let _listener = UnixListener::bind(&path).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
        let name = Name::try_from("drive").unwrap();
        let source = Artifact::open_socket(&path).unwrap();
        let error = socket(&source, &dir, &name, Owner::caller()).unwrap_err();
        assert!(error.to_string().contains("may not write"), "{error}");
        std::fs::write(tmp.path().join("file"), "image").unwrap();
        let error = Artifact::open_socket(&tmp.path().join("file")).unwrap_err();
        assert!(error.to_string().contains("a regular file"), "{error}");
        std::os::unix::fs::symlink("backend", tmp.path().join("link")).unwrap();
        assert!(Artifact::open_socket(&tmp.path().join("link")).is_err());
        let file = Artifact::open(&tmp.path().join("file")).unwrap();
        assert!(socket(&file, &dir, &name, Owner::caller()).is_err());
        let error = source.expect_file("stage").unwrap_err();
        assert!(error.to_string().contains("a socket"), "{error}");
    }
}

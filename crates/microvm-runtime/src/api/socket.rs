//! A socket of Firecracker's: opened below the held root, verified, and connected to by descriptor.
//!
//! The jail's uid can put anything in the socket's place (threat model, row 24): a link to another socket, a file, a socket
//! of another process. So the inode is held, and the kernel reports the process that listens (`SO_PEERCRED`).

use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::FileStat;
use crate::sys::{Errno, unix_socket};

/// The shortest timeout that is set: zero would mean none.
const SHORTEST: Duration = Duration::from_millis(1);

/// The longest timeout that the kernel is given at a time.
const LONGEST: Duration = Duration::from_secs(3600);

/// A socket in a jail, held by an `O_PATH` descriptor: this inode, whatever its name comes to mean.
#[derive(Debug)]
pub(crate) struct JailSocket {
    handle: OwnedFd,
    uid: u32,
    purpose: Purpose,
}

/// The purpose of a socket, for errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Api,
    Vsock,
}

impl Purpose {
    fn noun(self) -> &'static str {
        match self {
            Self::Api => "the API",
            Self::Vsock => "the guest's vsock",
        }
    }

    /// Returns the error kind for failures that no more precise kind describes.
    fn kind(self) -> ErrorKind {
        match self {
            Self::Api => ErrorKind::Api,
            Self::Vsock => ErrorKind::Vsock,
        }
    }
}

impl JailSocket {
    /// Opens `name` below `root` (`openat2(2)` with `O_PATH`, no link, no way out, no other mount); `None` where there is
    /// nothing of that name.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] where it is no socket, or not `uid`'s.
    pub(crate) fn open(root: impl AsFd, name: &str, uid: u32) -> Result<Option<Self>> {
        Self::open_for(Purpose::Api, root, name, uid)
    }

    /// Opens the socket as [`open`](Self::open), for another purpose than the API.
    pub(crate) fn open_for(
        purpose: Purpose,
        root: impl AsFd,
        name: &str,
        uid: u32,
    ) -> Result<Option<Self>> {
        let operation = || format!("open {}'s socket", purpose.noun());
        let failed = || Error::new(ErrorKind::Identity, operation()).path(name);
        let handle = match unix_socket::hold_below(root, name) {
            Ok(handle) => handle,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => {
                return Err(failed()
                    .source_of(errno)
                    .hinted("The VM may have replaced the socket."));
            }
        };
        let stat = FileStat::of(&handle).map_err(|errno| failed().source_of(errno))?;
        if !stat.is_socket() {
            return Err(failed()
                .because("it is no socket")
                .hinted("The VM has replaced the socket."));
        }
        if stat.uid() != uid {
            let because = format!("it belongs to uid {}, the VM runs as {uid}", stat.uid());
            return Err(failed().because(because).hinted("The VM has replaced the socket."));
        }
        Ok(Some(Self { handle, uid, purpose }))
    }

    /// Connects to the socket and checks that the process `pid` listens there (`SO_PEERCRED`).
    ///
    /// The path goes through `/proc/self/fd`, so that the socket's path may have any length (`sun_path` has 107 bytes).
    /// Returns `None` if no process listens yet.
    ///
    /// # Errors
    /// [`ErrorKind::Identity`] if another process listens; [`ErrorKind::Timeout`] if the VMM does not accept;
    /// [`ErrorKind::Api`] or [`ErrorKind::Vsock`] otherwise.
    pub(crate) fn connect(&self, pid: u32, deadline: Deadline) -> Result<Option<UnixStream>> {
        let other = self.purpose.kind();
        let failed = |kind| Error::new(kind, format!("connect to {}", self.purpose.noun()));
        let stream =
            unix_socket::stream_socket().map_err(|errno| failed(other).source_of(errno))?;
        loop {
            let left = deadline.left().map(|left| left.clamp(SHORTEST, LONGEST));
            match unix_socket::connect(stream.as_fd(), self.handle.as_fd(), left) {
                Ok(()) => break,
                Err(Errno::CONNREFUSED) => return Ok(None),
                Err(Errno::AGAIN | Errno::INTR) if !deadline.has_passed() => {}
                Err(Errno::AGAIN | Errno::INTR) => {
                    return Err(
                        failed(ErrorKind::Timeout).because("the VMM did not accept it in time")
                    );
                }
                Err(errno) => return Err(failed(other).source_of(errno)),
            }
        }
        let (peer_pid, peer_uid) =
            unix_socket::peer(&stream).map_err(|errno| failed(other).source_of(errno))?;
        if u32::try_from(peer_pid) != Ok(pid) || peer_uid != self.uid {
            return Err(failed(ErrorKind::Identity)
                .because(format!(
                    "process {peer_pid} of uid {peer_uid} listens there, the VMM is process {pid} of uid {}",
                    self.uid
                ))
                .hinted("The VM has replaced the socket."));
        }
        Ok(Some(stream.into()))
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn held(dir: &tempfile::TempDir) -> File {
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        File::open(dir.path()).unwrap()
    }

    fn soon() -> Deadline {
        Deadline::after(Duration::from_secs(10))
    }

    fn me() -> (u32, u32) {
        (std::process::id(), crate::sys::process::effective_uid())
    }

    #[test]
    fn long_socket_paths_work() {
        let (pid, uid) = me();
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(120)).join("e".repeat(120));
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        std::fs::create_dir_all(&deep).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the test's own directory")]
        let root = File::open(&deep).unwrap();
        assert!(UnixListener::bind(deep.join("s")).is_err(), "the path is too long for sun_path");
        assert!(JailSocket::open(&root, "s", uid).unwrap().is_none());

        let _listener =
            UnixListener::bind(format!("/proc/self/fd/{}/s", root.as_raw_fd())).unwrap();
        let socket = JailSocket::open(&root, "s", uid).unwrap().unwrap();
        assert!(socket.connect(pid, soon()).unwrap().is_some());

        let error = socket.connect(pid + 1, soon()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Identity);
        assert!(error.to_string().contains(&pid.to_string()), "{error}");
    }

    #[test]
    fn foreign_sockets_are_refused() {
        let (_, uid) = me();
        let dir = tempfile::tempdir().unwrap();
        let root = held(&dir);
        let _elsewhere = UnixListener::bind(dir.path().join("real")).unwrap();
        #[expect(clippy::disallowed_methods, reason = "the attacker's link and file")]
        {
            std::os::unix::fs::symlink("real", dir.path().join("link")).unwrap();
            std::os::unix::fs::symlink("/run/dbus", dir.path().join("out")).unwrap();
            std::fs::write(dir.path().join("file"), "").unwrap();
        }
        for bad in ["link", "out", "file", "../real", "/real"] {
            let error = JailSocket::open(&root, bad, uid).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Identity, "{bad}: {error}");
        }
        let error = JailSocket::open(&root, "real", uid + 1).unwrap_err();
        assert!(error.to_string().contains(&format!("uid {uid}")), "{error}");
    }

    #[test]
    fn replaced_names_are_not_followed() {
        let (pid, uid) = me();
        let dir = tempfile::tempdir().unwrap();
        let root = held(&dir);
        let first = UnixListener::bind(dir.path().join("s")).unwrap();
        let socket = JailSocket::open(&root, "s", uid).unwrap().unwrap();
        drop(first);
        #[expect(clippy::disallowed_methods, reason = "the attacker's exchange")]
        std::fs::remove_file(dir.path().join("s")).unwrap();
        let _second = UnixListener::bind(dir.path().join("s")).unwrap();
        assert!(
            socket.connect(pid, soon()).unwrap().is_none(),
            "the first inode is held, and nobody listens there"
        );
    }

    #[test]
    fn full_backlog_meets_the_deadline() {
        let (pid, uid) = me();
        let dir = tempfile::tempdir().unwrap();
        let root = held(&dir);
        let listener = unix_socket::stream_socket().unwrap();
        let address = rustix::net::SocketAddrUnix::new(dir.path().join("s")).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let socket = JailSocket::open(&root, "s", uid).unwrap().unwrap();
        let first = socket.connect(pid, soon()).unwrap();
        let error = socket.connect(pid, Deadline::after(Duration::from_millis(20))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Timeout, "{error}");
        drop(first);
    }
}

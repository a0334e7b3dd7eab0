//! The guest's vsock: connections to the guest, and from the guest ([`VsockListener`]).
//!
//! Firecracker has a Unix socket in the jail for each direction
//! ([vsock](https://github.com/firecracker-microvm/firecracker/blob/main/docs/vsock.md)): the VMM listens at `v.sock`, and
//! connects to `v.sock_<port>`. Both names are the VM's to replace, so the other end is asked for its process each time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use crate::api::{JailSocket, Purpose};
use crate::deadline::Deadline;
use crate::error::{Error, ErrorKind, Result, VmRuntimeResult};
use crate::host_check::{self, Verb};
use crate::jail::prepare::open_root;
use crate::random_name::random_name;
use crate::sys::file::{self, FileStat};
use crate::sys::{Errno, Wanted, poll, unix_socket};
use crate::text::quoted;
use crate::vm::{Life, Vm};
use jail_cmd::in_jail;
use jail_fs::{Dir, InodeId};

/// The time limit of [`Vm::vsock_connect`].
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Bytes of Firecracker's answer at most: `OK 4294967295\n` has 14.
const MAX_ANSWER: usize = 32;

/// Connections from the guest that wait to be accepted.
const BACKLOG: i32 = 128;

const CONNECT: &str = "connect to the guest's vsock";
const LISTEN: &str = "listen for the guest's vsock";
const ACCEPT: &str = "accept a vsock connection";

impl Vm {
    /// Connects to the port of the guest's vsock (`CONNECT <port>`), and returns the stream after Firecracker's answer.
    /// The guest must listen on the port.
    ///
    /// The stream is blocking and without a timeout; whatever comes from it is the guest's.
    ///
    /// # Errors
    /// [`Vsock`](ErrorKind::Vsock) if the guest does not listen on the port, or the answer is not Firecracker's;
    /// [`Unsupported`](ErrorKind::Unsupported) if the spec has a machine without a vsock device;
    /// [`NotFound`](ErrorKind::NotFound) if the device has no socket; [`Identity`](ErrorKind::Identity) if the socket is a
    /// link, is not the uid's, or is another process's; [`Timeout`](ErrorKind::Timeout) after 10 s.
    pub fn vsock_connect(&self, port: u32) -> VmRuntimeResult<UnixStream> {
        self.vsock_connect_within(port, CONNECT_TIMEOUT)
    }

    /// Connects as [`vsock_connect`](Self::vsock_connect), within `timeout`. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    /// As [`vsock_connect`](Self::vsock_connect).
    pub fn vsock_connect_within(
        &self,
        port: u32,
        timeout: Duration,
    ) -> VmRuntimeResult<UnixStream> {
        let connected = self.connect_to_guest(port, Deadline::after(timeout));
        Ok(connected.map_err(|failure| host_check::explain(Verb::Api, failure))?)
    }

    fn connect_to_guest(&self, port: u32, deadline: Deadline) -> Result<UnixStream> {
        self.expect_vsock(CONNECT)?;
        let root = self.root()?;
        let socket = JailSocket::open_for(Purpose::Vsock, root, in_jail::VSOCK, self.record.uid)?;
        let nobody = || {
            Error::new(ErrorKind::NotFound, CONNECT)
                .path(in_jail::VSOCK)
                .because("no VMM listens there")
                .hinted("The device exists once the machine has started, with the path `v.sock`.")
        };
        let stream =
            socket.ok_or_else(nobody)?.connect(self.process.pid(), deadline)?.ok_or_else(nobody)?;
        shake_hands(&stream, port, deadline)?;
        stream
            .set_write_timeout(None)
            .map_err(|error| Error::new(ErrorKind::Vsock, CONNECT).source_of(error))?;
        Ok(stream)
    }

    /// Listens for connections of the guest to the host (context id 2) on this port, at the socket `v.sock_<port>` in the
    /// jail. The socket belongs to the VM's uid, and goes with the jail, or when the listener is dropped.
    ///
    /// A socket that a former launcher left there is replaced, and so is whatever the VM has put there.
    ///
    /// # Errors
    /// [`Busy`](ErrorKind::Busy) if this process listens on the port already; [`Unsupported`](ErrorKind::Unsupported) if the
    /// spec has a machine without a vsock device; [`Identity`](ErrorKind::Identity) if the VM has ended;
    /// [`Filesystem`](ErrorKind::Filesystem) if the socket cannot be made, or the VM has put a directory there.
    pub fn vsock_listen(&self, port: u32) -> VmRuntimeResult<VsockListener> {
        Ok(self.listen_to_guest(port)?)
    }

    fn listen_to_guest(&self, port: u32) -> Result<VsockListener> {
        self.expect_vsock(LISTEN)?;
        let failed = |error: std::io::Error| Error::new(ErrorKind::Vsock, LISTEN).source_of(error);
        let pidfd = self.process.as_fd().try_clone_to_owned().map_err(failed)?;
        // Held until the socket is in its place: as long as the end was not seen, the jail is this VM's.
        let life = self.life();
        let Life::Unseen { lock } = &*life else {
            return Err(Error::new(ErrorKind::Identity, LISTEN).because("the VM has ended"));
        };
        let root = open_root(lock.dir(), self.record.root)?;
        let name = format!("{}_{port}", in_jail::VSOCK);
        let owner = (self.record.uid, self.record.gid);
        let (socket, inode) = publish(lock.dir().dir(), &root, &name, owner)?;
        drop(life);
        let (pid, uid) = (self.process.pid(), self.record.uid);
        Ok(VsockListener {
            socket,
            root,
            name,
            inode,
            port,
            pid,
            uid,
            pidfd,
            maker: std::process::id(),
        })
    }

    fn expect_vsock(&self, operation: &str) -> Result<()> {
        match &self.record.spec.boot {
            Some(boot) if !boot.has_vsock() => Err(Error::new(ErrorKind::Unsupported, operation)
                .because("the machine has no vsock device")
                .hinted("Give the spec's boot a `vsock`.")),
            _ => Ok(()),
        }
    }
}

/// Sends `CONNECT <port>` and reads Firecracker's answer, not a byte more: what follows is the guest's.
fn shake_hands(stream: &UnixStream, port: u32, deadline: Deadline) -> Result<()> {
    let failed = |kind| Error::new(kind, format!("{CONNECT} on port {port}"));
    let request = format!("CONNECT {port}\n");
    // A new connection has room for that.
    match unix_socket::send_now(stream, request.as_bytes()) {
        Ok(count) if count == request.len() => {}
        Ok(_) => return Err(failed(ErrorKind::Vsock).because("Firecracker reads nothing")),
        Err(errno) => return Err(failed(ErrorKind::Vsock).source_of(errno)),
    }
    let mut answer = Vec::with_capacity(MAX_ANSWER);
    while answer.last() != Some(&b'\n') {
        if deadline.has_passed() {
            return Err(failed(ErrorKind::Timeout)
                .because("Firecracker did not answer in time")
                .hinted("Give the guest more time, and check that the machine runs."));
        }
        if answer.len() == MAX_ANSWER {
            return Err(failed(ErrorKind::Vsock)
                .because(format!("the answer is not Firecracker's: {}", quoted(&answer))));
        }
        poll([(stream, Wanted::Readable)], deadline)
            .map_err(|errno| failed(ErrorKind::Vsock).source_of(errno))?;
        let mut byte = [0];
        match unix_socket::receive_now(stream, &mut byte) {
            Ok(0) | Err(Errno::CONNRESET) => {
                return Err(failed(ErrorKind::Vsock)
                    .because("Firecracker closed the connection")
                    .hinted("Check that the guest listens on the port."));
            }
            Ok(_) => answer.extend(byte),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(errno) => return Err(failed(ErrorKind::Vsock).source_of(errno)),
        }
    }
    if is_ok(&answer) {
        return Ok(());
    }
    Err(failed(ErrorKind::Vsock)
        .because(format!("the answer is not Firecracker's: {}", quoted(&answer))))
}

/// Returns true for `OK <port>\n`, with the port that Firecracker has chosen on the host.
fn is_ok(answer: &[u8]) -> bool {
    let port = answer.strip_prefix(b"OK ").and_then(|rest| rest.strip_suffix(b"\n"));
    let port = port.and_then(|port| std::str::from_utf8(port).ok());
    port.is_some_and(|port| {
        port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u32>().is_ok()
    })
}

/// Makes a listening socket for `owner`, and gives the socket its name in `root`: made aside in the jail's own directory,
/// which is root's alone, and published by one rename.
fn publish(jail: &Dir, root: &Dir, name: &str, owner: (u32, u32)) -> Result<(OwnedFd, InodeId)> {
    let failed =
        |errno: Errno| Error::new(ErrorKind::Filesystem, LISTEN).path(name).source_of(errno);
    let aside = random_name("vsock");
    let published = unix_socket::listen_in(jail, &aside, owner, BACKLOG).map_err(failed).and_then(
        |(socket, held)| {
            match file::rename_new(jail, &aside, root, name) {
                Err(Errno::EXIST) if is_own(root, name) => {
                    return Err(Error::new(ErrorKind::Busy, LISTEN)
                        .path(name)
                        .because("this process listens there already")
                        .hinted("Drop the other listener first."));
                }
                Err(Errno::EXIST) => {
                    file::rename_over(jail, &aside, root, name).map_err(failed)?;
                }
                renamed => renamed.map_err(failed)?,
            }
            Ok((socket, InodeId::of(&held)?))
        },
    );
    if published.is_err() {
        let _ = file::unlink(jail, &aside);
    }
    published
}

/// Returns true if `name` is a socket that this process listens on.
fn is_own(root: &Dir, name: &str) -> bool {
    let Ok(held) = unix_socket::hold_below(root, name) else { return false };
    FileStat::of(&held).is_ok_and(|stat| stat.is_socket())
        && unix_socket::is_own(held.as_fd()).unwrap_or(false)
}

/// A listener for connections of a VM's guest to one port of the host, made by [`Vm::vsock_listen`].
///
/// Its descriptor ([`AsFd`]) is readable while a connection waits. Only connections of the VMM are accepted.
///
/// # Caveats
/// Dropping it removes the socket from the jail, unless the VM has put something else there.
#[derive(Debug)]
pub struct VsockListener {
    socket: OwnedFd,
    root: Dir,
    name: String,
    inode: InodeId,
    port: u32,
    pid: u32,
    uid: u32,
    pidfd: OwnedFd,
    /// The process that made the socket: a copy in a forked process removes nothing.
    maker: u32,
}

impl VsockListener {
    /// Returns the port that the guest connects to.
    #[must_use]
    pub fn port(&self) -> u32 {
        self.port
    }

    /// Waits for a connection of the guest (`accept4(2)`).
    ///
    /// The stream is blocking and without a timeout; whatever comes from it is the guest's.
    ///
    /// # Errors
    /// [`Identity`](ErrorKind::Identity) if the VM has ended; [`Vsock`](ErrorKind::Vsock) if the kernel refuses.
    pub fn accept(&self) -> VmRuntimeResult<UnixStream> {
        loop {
            if let Some(stream) = self.accept_by(Deadline::NEVER)? {
                return Ok(stream);
            }
        }
    }

    /// Waits for a connection until `timeout` has passed, and returns `None` then. `Duration::MAX` waits for ever.
    ///
    /// # Errors
    /// As [`accept`](Self::accept).
    pub fn accept_timeout(&self, timeout: Duration) -> VmRuntimeResult<Option<UnixStream>> {
        Ok(self.accept_by(Deadline::after(timeout))?)
    }

    fn accept_by(&self, deadline: Deadline) -> Result<Option<UnixStream>> {
        let failed = |errno: Errno| Error::new(ErrorKind::Vsock, ACCEPT).source_of(errno);
        loop {
            let fds: [(&dyn AsFd, Wanted); 2] =
                [(&self.socket, Wanted::Readable), (&self.pidfd, Wanted::Readable)];
            let [waits, ended] = poll(fds, deadline).map_err(failed)?;
            if waits {
                match unix_socket::accept(&self.socket) {
                    Ok(stream) if self.is_vmm(&stream) => return Ok(Some(stream)),
                    Ok(_) | Err(Errno::AGAIN | Errno::INTR | Errno::CONNABORTED) => {}
                    Err(errno) => return Err(failed(errno)),
                }
            } else if ended {
                return Err(Error::new(ErrorKind::Identity, ACCEPT).because("the VM has ended"));
            }
            if deadline.has_passed() {
                return Ok(None);
            }
        }
    }

    fn is_vmm(&self, stream: &UnixStream) -> bool {
        unix_socket::peer(stream)
            .is_ok_and(|(pid, uid)| u32::try_from(pid) == Ok(self.pid) && uid == self.uid)
    }
}

impl AsFd for VsockListener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for VsockListener {
    fn drop(&mut self) {
        if self.maker != std::process::id() {
            return;
        }
        let found = unix_socket::hold_below(&self.root, &self.name);
        let found = found.ok().and_then(|found| InodeId::of(&found).ok());
        if found == Some(self.inode) {
            let _ = file::unlink(&self.root, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    fn answered(bytes: &[u8], timeout: Duration) -> (Result<()>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        theirs.write_all(bytes).unwrap();
        (shake_hands(&ours, 52, Deadline::after(timeout)), ours)
    }

    #[test]
    fn only_firecrackers_answer_counts() {
        const MINUTE: Duration = Duration::from_secs(60);
        let (answer, mut stream) = answered(b"OK 1073741824\nguest", MINUTE);
        answer.unwrap();
        let mut first = [0; 5];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"guest", "the guest's bytes are the caller's");
        for wrong in
            ["OK\n", "OK \n", "OK x\n", "OK +1\n", "OK 4294967296\n", "ok 1\n", "\n", "OK 1\r\n"]
        {
            let error = answered(wrong.as_bytes(), MINUTE).0.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Vsock, "{wrong:?}: {error}");
        }
    }

    #[test]
    fn row_71_slow_and_endless_answers_end() {
        let begun = std::time::Instant::now();
        let (answer, _) = answered(b"OK 1", Duration::from_millis(50));
        assert_eq!(answer.unwrap_err().kind(), ErrorKind::Timeout);
        let (answer, _) = answered(&[0x1b; 1 << 12], Duration::MAX);
        let error = answer.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Vsock);
        assert!(!error.chars().any(char::is_control) && error.len() < 1 << 10, "{error}");
        // A peer that sends a byte now and then gets no more time for each.
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let drip = std::thread::spawn(move || {
            while theirs.write_all(b"0").is_ok() {
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let error = shake_hands(&ours, 52, Deadline::after(Duration::from_millis(100)));
        assert_eq!(error.unwrap_err().kind(), ErrorKind::Timeout);
        drop(ours);
        drip.join().unwrap();
        assert!(begun.elapsed() < Duration::from_secs(60));
    }
}

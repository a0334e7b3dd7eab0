//! Unix sockets by descriptor: held below a directory, connected to, and asked for the peer.

use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, ResolveFlags, Uid, chmodat, chownat, openat2};
use rustix::net::sockopt::{Timeout, set_socket_timeout, socket_peercred};
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, socket_with,
};

use super::Errno;

/// The number of attempts for a look-up that a rename elsewhere disturbs (`EAGAIN`).
const ATTEMPTS: u32 = 128;

const NOW: SocketFlags = SocketFlags::CLOEXEC.union(SocketFlags::NONBLOCK);

/// Opens `name` below `root` for reference only (`openat2(2)` with `O_PATH`): no link, no way out, no other mount.
pub(crate) fn hold_below(root: impl AsFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let mut attempt = 1;
    loop {
        match openat2(&root, name, flags, Mode::empty(), resolve) {
            Err(Errno::AGAIN | Errno::INTR) if attempt < ATTEMPTS => attempt += 1,
            answer => return answer,
        }
    }
}

/// Makes an unconnected stream socket.
pub(crate) fn stream_socket() -> Result<OwnedFd, Errno> {
    socket_with(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
}

/// Connects to the socket that `held` refers to, through `/proc/self/fd`: the socket's path may have any length.
///
/// # Errors
/// `EAGAIN` if the listener's backlog is full until `timeout` has passed; `None` waits for ever.
pub(crate) fn connect(
    stream: BorrowedFd<'_>,
    held: BorrowedFd<'_>,
    timeout: Option<Duration>,
) -> Result<(), Errno> {
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", held.as_raw_fd()))?;
    // A full backlog makes connect(2) wait as long as the send timeout allows.
    set_socket_timeout(stream, Timeout::Send, timeout)?;
    rustix::net::connect(stream, &address)
}

/// Returns true if this process listens on the socket that `held` refers to. Waits for nobody.
pub(crate) fn is_own(held: BorrowedFd<'_>) -> Result<bool, Errno> {
    let stream = socket_with(AddressFamily::UNIX, SocketType::STREAM, NOW, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", held.as_raw_fd()))?;
    rustix::net::connect(&stream, &address)?;
    Ok(socket_peercred(&stream)?.pid == rustix::process::getpid())
}

/// Makes the socket `name` in `dir`, gives it to `uid` and `gid` with mode 0600, by the descriptor of the inode, and
/// listens. Returns the listener, which never waits, and the inode. `dir` must be this user's alone.
pub(crate) fn listen_in(
    dir: impl AsFd,
    name: &str,
    (uid, gid): (u32, u32),
    backlog: i32,
) -> Result<(OwnedFd, OwnedFd), Errno> {
    let listener = socket_with(AddressFamily::UNIX, SocketType::STREAM, NOW, None)?;
    let number = dir.as_fd().as_raw_fd();
    rustix::net::bind(&listener, &SocketAddrUnix::new(format!("/proc/self/fd/{number}/{name}"))?)?;
    let held = hold_below(dir, name)?;
    let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
    chownat(&held, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
    let path = format!("/proc/self/fd/{}", held.as_raw_fd());
    chmodat(CWD, path, Mode::RUSR | Mode::WUSR, AtFlags::empty())?;
    rustix::net::listen(&listener, backlog)?;
    Ok((listener, held))
}

/// Takes a connection that waits (`accept4(2)`). The stream is blocking.
pub(crate) fn accept(listener: impl AsFd) -> Result<UnixStream, Errno> {
    rustix::net::accept_with(listener, SocketFlags::CLOEXEC).map(UnixStream::from)
}

/// Returns the pid and the uid of the process that listens at the other end (`SO_PEERCRED`).
pub(crate) fn peer(stream: impl AsFd) -> Result<(i32, u32), Errno> {
    let peer = socket_peercred(stream)?;
    Ok((peer.pid.as_raw_nonzero().get(), peer.uid.as_raw()))
}

/// Sends the bytes that the peer accepts without waiting, and raises no SIGPIPE.
pub(crate) fn send_now(stream: &UnixStream, bytes: &[u8]) -> Result<usize, Errno> {
    rustix::net::send(stream, bytes, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
}

/// Receives the bytes that have arrived, without waiting; 0 at the end.
pub(crate) fn receive_now(stream: &UnixStream, buffer: &mut [u8]) -> Result<usize, Errno> {
    rustix::net::recv(stream, buffer, RecvFlags::DONTWAIT).map(|(count, _)| count)
}

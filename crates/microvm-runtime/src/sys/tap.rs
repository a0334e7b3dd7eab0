//! Making a tap device in the network namespace of the calling thread.

use std::io;
use std::mem::zeroed;
use std::os::fd::{AsFd, AsRawFd as _};

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

/// A tap device to be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTap {
    /// The name, 1 to 15 bytes.
    pub(crate) name: String,
    /// The uid that may open the device.
    pub(crate) owner: u32,
}

/// The flags of the device, as Firecracker opens it; with `IFF_TUN_EXCL` a device that exists is an error.
const FLAGS: i32 = libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR | libc::IFF_TUN_EXCL;

/// The flags of the interface: up, and all else as a new tap device has.
const UP: i32 = libc::IFF_UP | libc::IFF_MULTICAST;

impl NewTap {
    /// Makes the device, gives it to the owner and brings it up (`TUNSETIFF`, `TUNSETOWNER`, `SIOCSIFFLAGS`,
    /// `TUNSETPERSIST`). A device that failed goes with its descriptor. On failure, returns the name of the call.
    pub(super) fn create(&self) -> Result<(), (&'static str, io::Error)> {
        let tun = open("/dev/net/tun", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(|errno| ("open /dev/net/tun", errno.into()))?;
        self.request(&tun, libc::TUNSETIFF, FLAGS).map_err(|error| ("TUNSETIFF", error))?;
        set(&tun, libc::TUNSETOWNER, self.owner).map_err(|error| ("TUNSETOWNER", error))?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, flags, None)
            .map_err(|errno| ("socket", errno.into()))?;
        self.request(&socket, libc::SIOCSIFFLAGS, UP).map_err(|error| ("SIOCSIFFLAGS", error))?;
        set(&tun, libc::TUNSETPERSIST, 1).map_err(|error| ("TUNSETPERSIST", error))
    }

    /// Makes a call about the interface of this name, with these flags.
    fn request(&self, file: impl AsFd, call: libc::Ioctl, flags: i32) -> io::Result<()> {
        // SAFETY: the structure has numbers alone, of which any value is valid.
        let mut request: libc::ifreq = unsafe { zeroed() };
        let last = request.ifr_name.len() - 1;
        if self.name.len() > last {
            return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
        }
        for (to, from) in request.ifr_name.iter_mut().zip(self.name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        let flags = u16::try_from(flags).unwrap_or_default();
        request.ifr_ifru.ifru_flags = i16::from_ne_bytes(flags.to_ne_bytes());
        // SAFETY: both calls take an `ifreq`, which is there for the call.
        let done = unsafe { libc::ioctl(file.as_fd().as_raw_fd(), call, &raw mut request) };
        if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

fn set(tun: impl AsFd, call: libc::Ioctl, value: u32) -> io::Result<()> {
    // SAFETY: both calls take a number.
    let done = unsafe { libc::ioctl(tun.as_fd().as_raw_fd(), call, libc::c_ulong::from(value)) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

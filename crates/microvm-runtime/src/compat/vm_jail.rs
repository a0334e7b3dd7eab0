//! The paths of a jail in the 0.4 API: [`VmJail`].

use std::path::{Path, PathBuf};

use jail_cmd::in_jail;

/// The paths of a prepared jail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmJail {
    /// The jail's root directory on the host.
    pub chroot_path: PathBuf,
    /// The API socket in the jail: `/api.sock`.
    pub api_socket_in_chroot: PathBuf,
    /// The API socket on the host: `<chroot>/api.sock`.
    pub api_socket_on_host: PathBuf,
}

impl VmJail {
    pub(crate) fn at(root: PathBuf) -> Self {
        Self {
            api_socket_in_chroot: Path::new("/").join(in_jail::API_SOCKET),
            api_socket_on_host: root.join(in_jail::API_SOCKET),
            chroot_path: root,
        }
    }
}

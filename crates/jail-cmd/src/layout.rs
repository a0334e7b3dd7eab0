//! The paths of a jail: [`Layout`].

use std::path::PathBuf;

use crate::{ExecName, HostPath, JailId, JailPath, in_jail};

/// Longest path a UNIX socket can be bound or connected to by name, in bytes (`sun_path` in
/// `unix(7)` has 108, the NUL included).
pub const SUN_PATH_MAX: usize = 107;

/// Every path of one jail, on the host and inside.
///
/// ```text
/// <base>/<exec name>/              exec_dir
///   <id>/                          jail_dir
///     jail.json                    record: a launcher's, out of the VM's reach
///     root/                        root: the VM's `/`
///       <exec name>                exec_copy
///       <exec name>.pid            pid_file
///       api.sock                   api_socket
/// ```
///
/// It holds only for canonical paths: the jailer resolves the base and the exec file before it uses
/// them.
///
/// ```
/// use jail_cmd::{ExecName, HostPath, JailId, Layout};
///
/// let layout = Layout::new(HostPath::new("/srv/jailer")?, ExecName::new("firecracker")?, JailId::new("vm-1")?);
/// assert_eq!(layout.root().to_str(), Some("/srv/jailer/firecracker/vm-1/root"));
/// assert_eq!(layout.on_host(&layout.api_socket_in_jail()), layout.api_socket());
/// # Ok::<(), jail_cmd::Error>(())
/// ```
///
/// Source: `Env::new` in Firecracker's `src/jailer/src/env.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Layout {
    base: HostPath,
    exec_name: ExecName,
    id: JailId,
}

impl Layout {
    /// The layout of the jail `id` below a canonical base, for a canonical exec file of this name.
    #[must_use]
    pub fn new(base: HostPath, exec_name: ExecName, id: JailId) -> Self {
        Self { base, exec_name, id }
    }

    /// The directory of all jails, the jailer's `--chroot-base-dir`.
    #[must_use]
    pub fn base(&self) -> &HostPath {
        &self.base
    }

    /// The exec file's name.
    #[must_use]
    pub fn exec_name(&self) -> &ExecName {
        &self.exec_name
    }

    /// The jail's id.
    #[must_use]
    pub fn id(&self) -> &JailId {
        &self.id
    }

    /// The directory of all jails of this exec file, `<base>/<exec name>`.
    #[must_use]
    pub fn exec_dir(&self) -> PathBuf {
        self.base.as_path().join(self.exec_name.as_str())
    }

    /// The jail's directory, `<base>/<exec name>/<id>`.
    #[must_use]
    pub fn jail_dir(&self) -> PathBuf {
        self.exec_dir().join(self.id.as_str())
    }

    /// The jail's root, `<base>/<exec name>/<id>/root`.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        self.jail_dir().join("root")
    }

    /// The launcher's record of the jail, beside the root.
    #[must_use]
    pub fn record(&self) -> PathBuf {
        self.jail_dir().join("jail.json")
    }

    /// The copy of the exec file the jailer makes, on the host.
    #[must_use]
    pub fn exec_copy(&self) -> PathBuf {
        self.root().join(self.exec_name.as_str())
    }

    /// The file the jailer writes the pid to, on the host: with `--new-pid-ns`, and from release
    /// 1.7.0 on always.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.root().join(self.exec_name.pid_file())
    }

    /// The API socket on the host. Its path may be longer than [`SUN_PATH_MAX`].
    #[must_use]
    pub fn api_socket(&self) -> PathBuf {
        self.root().join(in_jail::API_SOCKET)
    }

    /// The API socket as Firecracker is told, `/api.sock`.
    #[must_use]
    pub fn api_socket_in_jail(&self) -> JailPath {
        JailPath::in_root(in_jail::API_SOCKET)
    }

    /// Returns the host path of a path in the jail.
    #[must_use]
    pub fn on_host(&self, path: &JailPath) -> PathBuf {
        self.root().join(path.as_str().trim_start_matches('/'))
    }

    /// Returns true if the host path of a socket fits into `sun_path`. A longer path, of more than
    /// [`SUN_PATH_MAX`] bytes, needs a descriptor to connect through (`/proc/self/fd/<n>`).
    #[must_use]
    pub fn fits_sun_path(&self, socket: &JailPath) -> bool {
        self.on_host(socket).as_os_str().len() <= SUN_PATH_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(base: &str, id: &str) -> Layout {
        let exec_name = ExecName::new("firecracker").unwrap();
        Layout::new(HostPath::new(base).unwrap(), exec_name, JailId::new(id).unwrap())
    }

    #[test]
    fn paths_are_the_jailers() {
        let layout = layout("/srv/jailer/", "vm-1");
        for (path, expected) in [
            (layout.exec_dir(), "/srv/jailer/firecracker"),
            (layout.jail_dir(), "/srv/jailer/firecracker/vm-1"),
            (layout.record(), "/srv/jailer/firecracker/vm-1/jail.json"),
            (layout.root(), "/srv/jailer/firecracker/vm-1/root"),
            (layout.exec_copy(), "/srv/jailer/firecracker/vm-1/root/firecracker"),
            (layout.pid_file(), "/srv/jailer/firecracker/vm-1/root/firecracker.pid"),
            (layout.api_socket(), "/srv/jailer/firecracker/vm-1/root/api.sock"),
            (
                layout.on_host(&JailPath::new("/run/x").unwrap()),
                "/srv/jailer/firecracker/vm-1/root/run/x",
            ),
            (layout.on_host(&JailPath::new("/").unwrap()), "/srv/jailer/firecracker/vm-1/root/"),
        ] {
            assert_eq!(path.to_str(), Some(expected));
        }
    }

    #[test]
    fn sun_path_budget_is_107_bytes() {
        // <base>/firecracker/<id>/root/api.sock
        let rest = "/firecracker/".len() + "/root/api.sock".len() + 64;
        let base = |bytes: usize| format!("/{}", "b".repeat(bytes - rest - 1));
        let fits = |bytes| {
            let layout = layout(&base(bytes), &"a".repeat(64));
            layout.fits_sun_path(&layout.api_socket_in_jail())
        };
        assert!(fits(107));
        assert!(!fits(108));
    }
}

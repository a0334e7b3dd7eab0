//! The jailer's command line: [`JailerArgs`].

use std::ffi::OsString;

use crate::cgroup_version::CgroupVersion;
use crate::firecracker_args::{option, switch};
use crate::{
    CgroupSetting, Error, ErrorKind, Feature, FirecrackerArgs, Gid, HostPath, JailId,
    JailerVersion, ParentCgroup, ResourceLimit, Uid,
};

/// The arguments of the jailer; [`to_argv`](Self::to_argv) makes the argv.
///
/// Each builder has the name of the field that it sets; the fields are for reading what was set or parsed.
/// The types ensure that no value can be read as an argument. [`check`](Self::check) compares the
/// arguments with a release.
///
/// ```
/// use jail_cmd::{Gid, HostPath, JailId, JailerArgs, JailerVersion, Uid};
///
/// let exec_file = HostPath::new("/usr/bin/firecracker")?;
/// let args = JailerArgs::new(JailId::new("vm-1")?, exec_file, Uid::new(123)?, Gid::new(100)?)
///     .cgroup_v2()
///     .new_pid_ns();
/// args.check(JailerVersion::new(1, 4, 0))?;
/// let argv = args.to_argv();
/// assert_eq!(argv[..4], ["--id", "vm-1", "--exec-file", "/usr/bin/firecracker"]);
/// assert_eq!(argv[4..], ["--uid", "123", "--gid", "100", "--cgroup-version", "2", "--new-pid-ns"]);
/// # Ok::<(), jail_cmd::Error>(())
/// ```
///
/// Source: `build_arg_parser` in Firecracker's `src/jailer/src/main.rs`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[non_exhaustive]
pub struct JailerArgs {
    /// The jail's id (`--id`).
    pub id: JailId,
    /// The exec file (`--exec-file`).
    pub exec_file: HostPath,
    /// The VMM's user (`--uid`).
    pub uid: Uid,
    /// The VMM's group (`--gid`).
    pub gid: Gid,
    /// The directory of all jails (`--chroot-base-dir`).
    pub chroot_base: Option<HostPath>,
    pub(crate) cgroup_version: Option<CgroupVersion>,
    /// The group above the jail's own (`--parent-cgroup`).
    pub parent_cgroup: Option<ParentCgroup>,
    /// The values for the jail's group (`--cgroup`), in the order of writing.
    pub cgroups: Vec<CgroupSetting>,
    /// The resource limits (`--resource-limit`).
    pub resource_limits: Vec<ResourceLimit>,
    /// The network namespace (`--netns`).
    pub netns: Option<HostPath>,
    /// True if the VMM gets a session of its own (`--daemonize`).
    pub daemonize: bool,
    /// True if the jailer makes a pid namespace (`--new-pid-ns`).
    pub new_pid_ns: bool,
    /// Firecracker's own arguments, after `--`.
    pub firecracker: FirecrackerArgs,
}

impl JailerArgs {
    /// The jailer's base directory where none is given.
    pub const DEFAULT_CHROOT_BASE: &str = "/srv/jailer";

    /// The four arguments that are required (`--id`, `--exec-file`, `--uid`, `--gid`).
    ///
    /// Give the canonical exec file: the jailer resolves it, and names the jail after what it
    /// finds.
    #[must_use]
    pub fn new(id: JailId, exec_file: HostPath, uid: Uid, gid: Gid) -> Self {
        Self {
            id,
            exec_file,
            uid,
            gid,
            chroot_base: None,
            cgroup_version: None,
            parent_cgroup: None,
            cgroups: Vec::new(),
            resource_limits: Vec::new(),
            netns: None,
            daemonize: false,
            new_pid_ns: false,
            firecracker: FirecrackerArgs::new(),
        }
    }

    /// The directory of all jails (`--chroot-base-dir`), which must exist.
    #[must_use]
    pub fn chroot_base(mut self, base: HostPath) -> Self {
        self.chroot_base = Some(base);
        self
    }

    /// Uses control groups v1 (`--cgroup-version 1`), which is the jailer's default.
    ///
    /// On a host without v1, the jailer fails only if a [`cgroup`](Self::cgroup) is given.
    #[must_use]
    pub fn cgroup_v1(mut self) -> Self {
        self.cgroup_version = Some(CgroupVersion::V1);
        self
    }

    /// Uses control groups v2 (`--cgroup-version 2`).
    #[must_use]
    pub fn cgroup_v2(mut self) -> Self {
        self.cgroup_version = Some(CgroupVersion::V2);
        self
    }

    /// Returns the version of control groups, 1 or 2, or `None` if none was set.
    #[must_use]
    pub fn cgroup_version(&self) -> Option<u8> {
        self.cgroup_version.map(CgroupVersion::number)
    }

    /// The group above the jail's own (`--parent-cgroup`). The jailer's default is the exec file's
    /// name.
    #[must_use]
    pub fn parent_cgroup(mut self, parent: ParentCgroup) -> Self {
        self.parent_cgroup = Some(parent);
        self
    }

    /// One more value for the jail's group (`--cgroup`); the jailer writes them in this order.
    #[must_use]
    pub fn cgroup(mut self, setting: CgroupSetting) -> Self {
        self.cgroups.push(setting);
        self
    }

    /// One more limit (`--resource-limit`); of two of a kind the later counts.
    #[must_use]
    pub fn resource_limit(mut self, limit: ResourceLimit) -> Self {
        self.resource_limits.push(limit);
        self
    }

    /// The network namespace the VMM joins (`--netns`).
    ///
    /// Give the canonical path: release 1.16.0 refuses a symbolic link.
    #[must_use]
    pub fn netns(mut self, path: HostPath) -> Self {
        self.netns = Some(path);
        self
    }

    /// Gives the VMM a new session, with `/dev/null` as stdin, stdout and stderr (`--daemonize`).
    ///
    /// # Caveats
    /// The jailer exits 0 even if the VMM fails.
    #[must_use]
    pub fn daemonize(mut self) -> Self {
        self.daemonize = true;
        self
    }

    /// Makes the VMM the first process of a pid namespace (`--new-pid-ns`).
    ///
    /// # Caveats
    /// The jailer exits 0, whatever becomes of the VMM.
    #[must_use]
    pub fn new_pid_ns(mut self) -> Self {
        self.new_pid_ns = true;
        self
    }

    /// Firecracker's own arguments, after `--`.
    #[must_use]
    pub fn firecracker(mut self, args: FirecrackerArgs) -> Self {
        self.firecracker = args;
        self
    }

    /// The argv, without the program's own name, in a fixed order.
    ///
    /// Arguments that were not set are left out. `--` is included if an argument of Firecracker follows.
    #[must_use]
    pub fn to_argv(&self) -> Vec<OsString> {
        let mut argv = Vec::new();
        option(&mut argv, "--id", Some(&self.id));
        option(&mut argv, "--exec-file", Some(&self.exec_file));
        option(&mut argv, "--uid", Some(self.uid));
        option(&mut argv, "--gid", Some(self.gid));
        option(&mut argv, "--chroot-base-dir", self.chroot_base.as_ref());
        option(&mut argv, "--cgroup-version", self.cgroup_version);
        option(&mut argv, "--parent-cgroup", self.parent_cgroup.as_ref());
        for setting in &self.cgroups {
            option(&mut argv, "--cgroup", Some(setting));
        }
        for limit in &self.resource_limits {
            option(&mut argv, "--resource-limit", Some(limit));
        }
        option(&mut argv, "--netns", self.netns.as_ref());
        switch(&mut argv, "--daemonize", self.daemonize);
        switch(&mut argv, "--new-pid-ns", self.new_pid_ns);
        let firecracker = self.firecracker.to_argv();
        switch(&mut argv, "--", !firecracker.is_empty());
        argv.extend(firecracker);
        argv
    }

    /// Refuses what this release of the jailer, or Firecracker of the same release, would refuse.
    ///
    /// # Errors
    /// - [`ErrorKind::UnsupportedByRelease`]: a release before 1.0.0, or an argument that this one
    ///   lacks.
    /// - [`ErrorKind::Combination`]: arguments that need each other.
    /// - [`ErrorKind::ResourceLimit`]: a limit under which the jailer cannot end its own work.
    pub fn check(&self, release: JailerVersion) -> Result<(), Error> {
        if release < JailerVersion::OLDEST {
            let reason = format!("releases before {} have other arguments", JailerVersion::OLDEST);
            return Err(Error::new(
                ErrorKind::UnsupportedByRelease,
                format!("jailer {release}"),
                reason,
            ));
        }
        self.resource_limits.iter().try_for_each(|limit| limit.check())?;
        let name = self.exec_file.file_name().unwrap_or_default();
        if !name.contains("firecracker") {
            release.require(Feature::AnyExecName, &format!("--exec-file {}", self.exec_file))?;
        }
        self.firecracker.check(release)
    }
}

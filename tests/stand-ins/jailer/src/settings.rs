//! The values of the arguments, checked in the official order and as loosely.

use std::fs;
use std::path::{Component, Path, PathBuf};

use jail_cmd::{Feature, JailerVersion, RawArgs};
use nix::sys::resource::{Resource, setrlimit};

use crate::cgroup::Cgroups;
use crate::failure::{Failure, InstanceId};

/// A launch with accepted values.
pub(crate) struct Settings {
    pub(crate) release: JailerVersion,
    pub(crate) id: String,
    pub(crate) exec_file: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) netns: Option<PathBuf>,
    pub(crate) cgroups: Cgroups,
    pub(crate) limits: Limits,
    pub(crate) daemonize: bool,
    pub(crate) new_pid_ns: bool,
    pub(crate) firecracker: Vec<String>,
    pub(crate) userfaultfd: Option<u64>,
}

impl Settings {
    pub(crate) fn read(args: RawArgs, release: JailerVersion) -> Result<Self, Failure> {
        check_id(&args.id).map_err(Failure::InvalidInstanceId)?;
        let exec_file = canonical(&args.exec_file)?;
        if !exec_file.is_file() {
            return Err(Failure::NotAFile(exec_file));
        }
        let exec_name = exec_file
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(|| Failure::ExtractFileName(exec_file.clone()))?
            .to_owned();
        if !release.supports(Feature::AnyExecName) && !exec_name.contains("firecracker") {
            return Err(Failure::ExecFileName(exec_name));
        }
        let base = canonical(args.chroot_base_dir.as_deref().unwrap_or("/srv/jailer"))?;
        if !base.is_dir() {
            return Err(Failure::NotADirectory(base));
        }
        let uid = args.uid.parse().map_err(|_| Failure::Uid(args.uid.clone()))?;
        let gid = args.gid.parse().map_err(|_| Failure::Gid(args.gid.clone()))?;
        let parent = PathBuf::from(args.parent_cgroup.as_ref().unwrap_or(&exec_name));
        if leads_elsewhere(&parent) {
            return Err(Failure::CgroupInvalidParentPath());
        }
        let version = args.cgroup_version.as_deref().unwrap_or("1");
        let version =
            version.parse().map_err(|_| Failure::CgroupInvalidVersion(version.to_owned()))?;
        let cgroups = Cgroups::read(&args.cgroups, version, &parent, &args.id, release)?;
        Ok(Self {
            release,
            root: base.join(&exec_name).join(&args.id).join("root"),
            id: args.id,
            exec_file,
            uid,
            gid,
            netns: args.netns.map(PathBuf::from),
            cgroups,
            limits: Limits::read(&args.resource_limits)?,
            daemonize: args.daemonize,
            new_pid_ns: args.new_pid_ns,
            firecracker: args.firecracker,
            userfaultfd: crate::jail::userfaultfd_minor(release),
        })
    }
}

fn canonical(path: &str) -> Result<PathBuf, Failure> {
    fs::canonicalize(path).map_err(|err| Failure::Canonicalize(path.into(), err))
}

/// The length counts bytes; the letters are Unicode's.
fn check_id(id: &str) -> Result<(), InstanceId> {
    if !(1..=64).contains(&id.len()) {
        return Err(InstanceId::InvalidLen(id.len(), 1, 64));
    }
    match id.chars().enumerate().find(|(_, c)| *c != '-' && !c.is_alphanumeric()) {
        Some((position, c)) => Err(InstanceId::InvalidChar(c, position)),
        None => Ok(()),
    }
}

/// Returns true if a path below a hierarchy may lead out; a `.` counts only at the start, where `components` keeps it.
pub(crate) fn leads_elsewhere(path: &Path) -> bool {
    path.components()
        .any(|part| matches!(part, Component::CurDir | Component::ParentDir | Component::RootDir))
}

/// The resource limits the jailer knows.
pub(crate) struct Limits {
    file_size: Option<u64>,
    open_files: u64,
}

impl Limits {
    fn read(args: &[String]) -> Result<Self, Failure> {
        let mut limits = Self { file_size: None, open_files: 2048 };
        for arg in args {
            let (name, value) =
                arg.split_once('=').ok_or_else(|| Failure::ResLimitFormat(arg.clone()))?;
            let number = value.parse().map_err(|err: std::num::ParseIntError| {
                Failure::ResLimitValue(value.to_owned(), err.to_string())
            })?;
            match name {
                "fsize" => limits.file_size = Some(number),
                "no-file" => limits.open_files = number,
                _ => return Err(Failure::ResLimitArgument(name.to_owned())),
            }
        }
        Ok(limits)
    }

    /// Soft and hard alike (setrlimit(2)).
    pub(crate) fn install(&self) -> Result<(), Failure> {
        if let Some(size) = self.file_size {
            setrlimit(Resource::RLIMIT_FSIZE, size, size)
                .map_err(|_| Failure::Setrlimit("size of file".to_owned()))?;
        }
        setrlimit(Resource::RLIMIT_NOFILE, self.open_files, self.open_files)
            .map_err(|_| Failure::Setrlimit("number of file descriptors".to_owned()))
    }
}

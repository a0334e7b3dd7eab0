//! The error texts of the official jailer; launchers read these lines.

use std::io;
use std::path::PathBuf;

/// A launch that failed. Displayed it is the official message, debugged the official second line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("Failed to parse arguments: {0}")]
    ArgumentParsing(Grammar),
    #[error("Failed to canonicalize path {0}: {1}")]
    Canonicalize(PathBuf, io::Error),
    #[error("Failed to inherit cgroups configurations from file {1} in path {0}")]
    CgroupInheritFromParent(PathBuf, String),
    #[error("Cgroup invalid file: {0}")]
    CgroupInvalidFile(String),
    #[error("Invalid format for cgroups: {0}")]
    CgroupFormat(String),
    #[error("Hierarchy not found: {0}")]
    CgroupHierarchyMissing(String),
    #[error("Controller {0} is unavailable")]
    CgroupControllerUnavailable(String),
    #[error("{0} is an invalid cgroup version specifier")]
    CgroupInvalidVersion(String),
    #[error("Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'")]
    CgroupInvalidParentPath(),
    #[error(
        "Failed to move process to cgroup ({0}): {1}.\nHint: If you intended to create a child cgroup under {0}, pass any \
         --cgroup parameters."
    )]
    CgroupMove(PathBuf, io::Error),
    #[error("Failed to change owner for {0}: {1}")]
    ChangeFileOwner(PathBuf, io::Error),
    #[error("Failed to chdir into chroot directory: {0}")]
    ChdirNewRoot(io::Error),
    #[error("Failed to change permissions on {0}: {1}")]
    Chmod(PathBuf, io::Error),
    #[error("Failed cloning into a new child process: {0}")]
    Clone(io::Error),
    #[error("Failed to copy {0} to {1}: {2}")]
    Copy(PathBuf, PathBuf, io::Error),
    #[error("Failed to create directory {0}: {1}")]
    CreateDir(PathBuf, io::Error),
    #[error("Failed to daemonize: {0}")]
    Daemonize(io::Error),
    #[error("Failed to duplicate fd: {0}")]
    Dup2(io::Error),
    #[error("Failed to exec into Firecracker: {0}")]
    Exec(io::Error),
    #[error(
        "Invalid filename. The filename of `--exec-file` option must contain \"firecracker\": {0}"
    )]
    ExecFileName(String),
    #[error("Failed to extract filename from path {0}")]
    ExtractFileName(PathBuf),
    #[error("Failed to open file {0}: {1}")]
    FileOpen(PathBuf, io::Error),
    #[error("Invalid gid: {0}")]
    Gid(String),
    #[error("Detected hard link at: {0}")]
    HardLink(PathBuf),
    #[error("Invalid instance ID: {0}")]
    InvalidInstanceId(InstanceId),
    #[error("Cannot get metadata for a file: {0}: {1}")]
    Metadata(PathBuf, io::Error),
    #[error("Failed to create the jail root directory before pivoting root: {0}")]
    MkdirOldRoot(io::Error),
    #[error("Failed to create {1} via mknod inside the jail: {0}")]
    MknodDev(io::Error, String),
    #[error("Failed to bind mount the jail root directory: {0}")]
    MountBind(io::Error),
    #[error("Failed to change the propagation type to slave: {0}")]
    MountPropagationSlave(io::Error),
    #[error("{0} is not a file")]
    NotAFile(PathBuf),
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    #[error("Failed to open {0}: {1}")]
    Open(PathBuf, io::Error),
    #[error("Failed to pivot root: {0}")]
    PivotRoot(io::Error),
    #[error("Failed to read file {0} into a string: {1}")]
    ReadToString(PathBuf, io::Error),
    #[error("Invalid resource argument: {0}")]
    ResLimitArgument(String),
    #[error("Invalid format for resources limits: {0}")]
    ResLimitFormat(String),
    #[error("Invalid limit value for resource: {0}: {1}")]
    ResLimitValue(String, String),
    #[error("Failed to remove old jail root directory: {0}")]
    RmOldRootDir(io::Error),
    #[error("Failed to change current directory: {0}")]
    SetCurrentDir(io::Error),
    #[error("Failed to join network namespace: netns: {0}")]
    SetNetNs(io::Error),
    #[error("Failed to set limit for resource: {0}")]
    Setrlimit(String),
    #[error("Failed to daemonize: setsid: {0}")]
    SetSid(io::Error),
    #[error("Invalid uid: {0}")]
    Uid(String),
    #[error("Failed to unmount the old jail root: {0}")]
    UmountOldRoot(io::Error),
    #[error("Failed to unshare into new mount namespace: {0}")]
    UnshareNewNs(io::Error),
    #[error("Failed to write to {0}: {1}")]
    Write(PathBuf, io::Error),
}

/// Errors of the grammar.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Grammar {
    #[error("Argument '{0}' required, but not found.")]
    MissingArgument(String),
    #[error("The argument '{0}' requires a value, but none was supplied.")]
    MissingValue(String),
    #[error("Found argument '{0}' which wasn't expected, or isn't valid in this context.")]
    UnexpectedArgument(String),
    #[error("The argument '{0}' was provided more than once.")]
    DuplicateArgument(String),
}

/// Errors of an id.
#[derive(Debug, thiserror::Error)]
pub(crate) enum InstanceId {
    #[error("Invalid char ({0}) at position {1}")]
    InvalidChar(char, usize),
    #[error("Invalid len ({0});  the length must be between {1} and {2}")]
    InvalidLen(usize, usize, usize),
}

impl From<jail_cmd::Error> for Failure {
    fn from(error: jail_cmd::Error) -> Self {
        use jail_cmd::ErrorKind;
        let name = error.value().to_owned();
        Self::ArgumentParsing(match error.kind() {
            ErrorKind::MissingArgument => Grammar::MissingArgument(name),
            ErrorKind::MissingValue => Grammar::MissingValue(name),
            ErrorKind::DuplicateArgument => Grammar::DuplicateArgument(name),
            // The official jailer panics while it collects its arguments.
            ErrorKind::NotUtf8 => {
                eprintln!("called `Result::unwrap()` on an `Err` value: {name:?}");
                std::process::abort()
            }
            _ => Grammar::UnexpectedArgument(name),
        })
    }
}

//! The jail itself: the copy of the exec file, the pivot, the directories and device nodes.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{
    MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _, chown, fchown,
};
use std::path::{Path, PathBuf};

use jail_cmd::{Feature, JailerVersion};
use nix::fcntl::OFlag;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::pivot_root;

use crate::failure::Failure;
use crate::settings::Settings;

const OLD_ROOT: &str = "old_root";

/// Copies the exec file into the jail's root and returns the copy's path inside the jail.
///
/// Links are refused, since a link lets a VM's user choose a file for root to write; an existing copy is overwritten but
/// not truncated. Releases before that fix follow the link and truncate.
pub(crate) fn copy_exec_file(settings: &Settings) -> Result<PathBuf, Failure> {
    let from = &settings.exec_file;
    let name = from.file_name().ok_or_else(|| Failure::ExtractFileName(from.clone()))?;
    let to = settings.root.join(name);
    let copy = |err| Failure::Copy(from.clone(), to.clone(), err);
    if !settings.release.supports(Feature::ChecksExecCopy) {
        fs::copy(from, &to).map_err(copy)?;
        return Ok(Path::new("/").join(name));
    }
    let mut source = File::open(from).map_err(|err| Failure::Open(from.clone(), err))?;
    let mode = source.metadata().map_err(|err| Failure::Metadata(from.clone(), err))?.mode();
    let mut target = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .custom_flags(OFlag::O_NOFOLLOW.bits())
        .mode(mode)
        .open(&to)
        .map_err(|err| Failure::Open(to.clone(), err))?;
    if target.metadata().map_err(|err| Failure::Metadata(to.clone(), err))?.nlink() > 1 {
        return Err(Failure::HardLink(to));
    }
    fchown(&target, Some(settings.uid), Some(settings.gid))
        .map_err(|err| Failure::ChangeFileOwner(to.clone(), err))?;
    io::copy(&mut source, &mut target).map_err(copy)?;
    Ok(Path::new("/").join(name))
}

/// setns(2) into the network namespace at `path`; one release alone would not follow a link to it.
pub(crate) fn join_netns(path: &Path, release: JailerVersion) -> Result<(), Failure> {
    let flags = if release.supports(Feature::FollowsNetnsLink) {
        OFlag::empty()
    } else {
        OFlag::O_NOFOLLOW
    };
    let netns = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(|err| Failure::FileOpen(path.to_owned(), err))?;
    setns(&netns, CloneFlags::CLONE_NEWNET).map_err(|err| Failure::SetNetNs(err.into()))
}

/// Makes `root` the root of a mount namespace of our own (unshare(2), pivot_root(2)).
pub(crate) fn enter(root: &Path) -> Result<(), Failure> {
    const NONE: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).map_err(|err| Failure::UnshareNewNs(err.into()))?;
    mount(NONE, "/", NONE, MsFlags::MS_SLAVE | MsFlags::MS_REC, NONE)
        .map_err(|err| Failure::MountPropagationSlave(err.into()))?;
    // The new root of a pivot is a mount point.
    mount(Some(root), root, NONE, MsFlags::MS_BIND | MsFlags::MS_REC, NONE)
        .map_err(|err| Failure::MountBind(err.into()))?;
    std::env::set_current_dir(root).map_err(Failure::SetCurrentDir)?;
    nix::unistd::mkdir(OLD_ROOT, Mode::S_IRUSR | Mode::S_IWUSR)
        .map_err(|err| Failure::MkdirOldRoot(err.into()))?;
    pivot_root(".", OLD_ROOT).map_err(|err| Failure::PivotRoot(err.into()))?;
    std::env::set_current_dir("/").map_err(Failure::ChdirNewRoot)?;
    umount2(OLD_ROOT, MntFlags::MNT_DETACH).map_err(|err| Failure::UmountOldRoot(err.into()))?;
    fs::remove_dir(OLD_ROOT).map_err(Failure::RmOldRootDir)
}

/// From inside: the directories, 0700 and the user's, then the device nodes, 0600 and the user's. What is there already
/// is fine for a directory and fatal for a node.
pub(crate) fn make_directories_and_nodes(settings: &Settings) -> Result<(), Failure> {
    for dir in ["/", "/dev", "/dev/net", "/run"] {
        let path = PathBuf::from(dir);
        fs::create_dir_all(dir).map_err(|err| Failure::CreateDir(path.clone(), err))?;
        fs::set_permissions(dir, Permissions::from_mode(0o700))
            .map_err(|err| Failure::Chmod(path.clone(), err))?;
        chown(dir, Some(settings.uid), Some(settings.gid))
            .map_err(|err| Failure::ChangeFileOwner(path, err))?;
    }
    make_node(settings, "/dev/net/tun", 10, 200)?;
    make_node(settings, "/dev/kvm", 10, 232)?;
    if let Err(failure) = make_node(settings, "/dev/urandom", 1, 9) {
        println!("Warning! Could not create /dev/urandom device inside jailer: {failure}.");
        println!("MMDS version 2 will not be available to use.");
    }
    match settings.userfaultfd {
        Some(minor) => make_node(settings, "/dev/userfaultfd", 10, minor),
        None => Ok(()),
    }
}

/// Returns the minor number of the host's userfaultfd device, if any. Like the official jailer, this function does not find
/// a number that the kernel pads with a blank.
pub(crate) fn userfaultfd_minor(release: JailerVersion) -> Option<u64> {
    if !release.supports(Feature::UserfaultfdNode) {
        return None;
    }
    fs::read_to_string("/proc/misc").ok()?.lines().find_map(|line| match line.split_once(' ') {
        Some((minor, "userfaultfd")) => minor.parse().ok(),
        _ => None,
    })
}

fn make_node(settings: &Settings, path: &str, major: u64, minor: u64) -> Result<(), Failure> {
    mknod(path, SFlag::S_IFCHR, Mode::S_IRUSR | Mode::S_IWUSR, makedev(major, minor))
        .map_err(|err| Failure::MknodDev(err.into(), path.to_owned()))?;
    chown(path, Some(settings.uid), Some(settings.gid))
        .map_err(|err| Failure::ChangeFileOwner(path.into(), err))
}

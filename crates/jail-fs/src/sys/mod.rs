//! The system calls of this crate: nothing else in it names nix, rustix or libc.
//!
//! Each function is one call, takes descriptors and single names, and answers with the kernel's error number.

mod attributes;
mod content;
mod names;
mod open;
mod process;

pub(crate) use nix::errno::Errno;
pub(crate) use rustix::fs::{FileType, RawDir, Statx, StatxTimestamp};

pub(crate) use self::attributes::{
    close_to_others, forget_project, has_xattr, is_immutable, is_mount_root, mount_flags,
    remove_xattr, set_mode, set_mode_of_handle, set_owner, set_owner_of_handle, stat, stat_at,
    stat_path,
};
pub(crate) use self::content::{
    allocate, clone_blocks, copy_range, next_extent, prefers_allocation, rewind, sync, truncate,
};
pub(crate) use self::names::{
    exchange, link, make_dir, make_node, path_of, read_link, remove_dir, rename_new, unlink,
};
pub(crate) use self::open::{
    Access, MOUNTINFO, beneath, component, create_named, create_unnamed, directory, handle,
    mountinfo, reopen_fifo, root, source_file, source_handle,
};
pub(crate) use self::process::{
    Pid, can_make_nodes, effective_gid, effective_uid, file_size_limit, is_unchanged, lock,
    open_files_limit, pid, random, unlock,
};

/// rustix's error number as nix's.
pub(crate) fn errno(errno: rustix::io::Errno) -> Errno {
    Errno::from_raw(errno.raw_os_error())
}

/// The number of an error of std's; each error from the kernel has a number.
pub(crate) fn number(error: &std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}

type Result<T> = std::result::Result<T, Errno>;

/// Makes a call again that a signal interrupted.
fn uninterrupted<T>(mut call: impl FnMut() -> rustix::io::Result<T>) -> Result<T> {
    loop {
        match call() {
            Err(rustix::io::Errno::INTR) => {}
            answer => return answer.map_err(errno),
        }
    }
}

//! Every system call of this crate.

mod file;
mod process;

pub(crate) use file::{
    Access, attribute, filesystem, id, make_dir, mount_id, mount_id_at, open_beneath, open_path,
    pread, read, remove_dir, set_attribute, subdirs, write_once,
};
pub(crate) use process::{Event, pidfd, signal_kill, wait_for};
pub(crate) use rustix::io::Errno;

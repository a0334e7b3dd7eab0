//! Bringing content into a tree, one verb a file.

mod archive;
mod artifact;
mod block_device;
mod char_device;
mod copy;
mod fifo;
mod new_file;
mod new_inode;
mod options;
mod persistent;
mod private;
mod private_copy;
mod read_only;
mod receipt;
mod return_persistent;
mod share;
mod socket;
mod staging_dir;
mod sync_name;
mod write;

pub use self::archive::archive;
pub use self::artifact::Artifact;
pub use self::block_device::{Access, block_device};
pub use self::char_device::{Ensured, ensure_char_device};
pub use self::fifo::{make_fifo, open_fifo};
pub(crate) use self::new_inode::{NewInode, take_back_dir};
pub use self::options::{CopyOptions, Progress, Watch};
pub use self::persistent::persistent;
pub use self::private::private;
pub use self::read_only::read_only;
pub use self::receipt::{Fallback, Loan, Receipt, Strategy};
pub use self::return_persistent::return_persistent;
pub use self::share::share;
pub use self::socket::socket;
pub use self::staging_dir::{StagedDir, StagingDir};
pub use self::write::write;

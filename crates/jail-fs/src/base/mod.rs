//! Directories that nobody else can change, and the way into the trees below.

mod inside;
mod new_dir;
mod trusted_dir;
mod vet;
mod walk;

pub(crate) use self::inside::{expect_below, refused_at};
pub use self::inside::{open_dir, open_file, read_small};
pub(crate) use self::new_dir::open_new_dir;
pub use self::trusted_dir::{MountFlags, TrustedDir};

//! Snapshots: taken of a running VM, kept as a directory of root's, restored into new jails.
//!
//! ```text
//!           take                    rename                   open, restored_from, launch
//!   Vm ------------> .staging-<dir> -------> <dir>/snapshot.json  ---------------------> Vm
//!      pause, create, copy drives,           vmstate, memory                 the memory is shared,
//!      resume, harvest, manifest             drives/<name>                   drives are private copies
//! ```

mod cpu;
mod digest;
mod harvest;
mod manifest;
mod open;
mod options;
mod requirements;
mod restored_from;
mod room;
mod take;

pub use self::cpu::Cpu;
pub use self::manifest::SnapshotFile;
pub use self::open::Snapshot;
pub use self::options::{Afterwards, SnapshotKind, SnapshotOptions};
pub(crate) use self::requirements::check as check_restore;

//! Trees in the making, leases of trees, and the rests of killed processes.

mod lease;
mod staged_tree;
mod sweep;

pub use self::lease::Lease;
pub use self::staged_tree::{Published, StagedTree};
pub use self::sweep::{SweepFailure, SweepReport, sweep};

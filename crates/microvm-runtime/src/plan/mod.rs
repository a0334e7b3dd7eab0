//! The plan of a launch: the spec validated as a whole, and the host read without a change.

mod contents;
pub(crate) mod host_file;
mod launch_plan;
mod leaf;
pub(crate) mod record_size;
pub(crate) mod release;
mod warning;

pub use contents::{PlannedArtifact, PlannedFile};
pub use launch_plan::Plan;
pub use warning::Warning;

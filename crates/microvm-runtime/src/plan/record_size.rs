//! The bound on a jail's record, checked in the plan.

use crate::error::{Error, Result};
use crate::spec::JailSpec;

/// The largest record, in bytes: checked when a VM is planned, and when the record is written and read.
pub(crate) const MAX_BYTES: usize = 1 << 20;

/// The largest size of a record without the spec and the sources' paths, in bytes.
const FIXED_BYTES: usize = 32 << 10;

/// The largest size of one artifact in a record without the source's path, in bytes.
const ARTIFACT_BYTES: usize = 2 << 10;

/// Refuses a spec with a record too large to be read back, before any change of the host. `sources` are the lengths of
/// the artifacts' paths, in bytes.
pub(super) fn check(spec: &JailSpec, sources: impl Iterator<Item = usize>) -> Result<()> {
    let operation = "plan the VM";
    let spec = serde_json::to_vec_pretty(spec)
        .map_err(|error| Error::invalid(operation, "it has no JSON").source_of(error))?;
    // Each byte of a path may be escaped.
    let artifacts = sources.map(|length| ARTIFACT_BYTES + 6 * length);
    let size = FIXED_BYTES + spec.len() + artifacts.sum::<usize>();
    if size <= MAX_BYTES {
        return Ok(());
    }
    Err(Error::invalid(
        operation,
        format!("its record would have up to {size} bytes, of at most {MAX_BYTES}"),
    )
    .hinted("Give the VM fewer or shorter drives, names and arguments."))
}

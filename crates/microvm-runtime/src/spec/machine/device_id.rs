//! The rule for the ids of devices.

use crate::error::{Error, Result};

/// Refuses an id that Firecracker's API cannot address: letters, digits and `_` are allowed.
pub(crate) fn check_id(operation: &str, id: &str) -> Result<()> {
    if !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
        return Ok(());
    }
    Err(Error::invalid(operation, format!("{id:?} is no id for Firecracker"))
        .hinted("Use letters, digits and `_` only."))
}

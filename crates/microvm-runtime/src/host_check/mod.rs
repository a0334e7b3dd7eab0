//! Conditions of the host that a launcher inherits, checked before a verb touches anything.
//!
//! One file a check. [`before`] makes those that cost a few system calls.

mod capability;
mod fault;
mod proc_mount;
mod root_mount;
mod system_calls;
mod user_namespace;

use crate::error::{Error, Result};
use crate::sys::{JAILERS, OURS};

/// A verb, for what it needs of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Plan,
    Prepare,
    /// Preparing a jail in which device nodes are made.
    PrepareNodes,
    Launch,
    List,
    Adopt,
    Inspect,
    Stats,
    Api,
    Snapshot,
    Shutdown,
    Kill,
    Remove,
    Sweep,
}

impl Verb {
    /// Whether the verb makes a jail, which takes the host's own root.
    fn makes_jail(self) -> bool {
        matches!(self, Self::Prepare | Self::PrepareNodes | Self::Launch)
    }
}

/// Checks what `verb` needs of the host, in about twenty system calls: `/proc`, system calls, user namespace, capabilities
/// and the mount of `/`.
///
/// # Errors
/// [`Unsupported`](crate::ErrorKind::Unsupported) or [`Privilege`](crate::ErrorKind::Privilege), with the check's name, what was found and
/// what to do.
pub(crate) fn before(verb: Verb) -> Result<()> {
    let status = proc_mount::check().map_err(|fault| fault.into_error("proc"))?;
    system_calls::check(OURS, status.filtered).map_err(|fault| fault.into_error("system calls"))?;
    if verb.makes_jail() {
        user_namespace::check().map_err(|fault| fault.into_error("user namespace"))?;
    }
    capability::check(verb, &status).map_err(|fault| fault.into_error("capabilities"))?;
    if verb == Verb::Launch {
        system_calls::check(JAILERS, status.filtered)
            .map_err(|fault| fault.into_error("system calls"))?;
        root_mount::check().map_err(|fault| fault.into_error("root mount"))?;
    }
    Ok(())
}

/// Returns the check that fails, with this failure as its cause; the failure itself if none does. For verbs that may succeed
/// without what they need, such as the kill of a VM that has ended.
pub(crate) fn explain(verb: Verb, failure: Error) -> Error {
    match before(verb) {
        Err(check) => check.source_of(failure),
        Ok(()) => failure,
    }
}

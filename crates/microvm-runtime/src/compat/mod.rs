//! The items that exist only for callers of the 0.4 API.

mod verbs;
mod vm_jail;

pub use verbs::safe_vm_id;
pub use vm_jail::VmJail;

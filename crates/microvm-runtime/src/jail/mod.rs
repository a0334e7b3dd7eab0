//! A jail on the host: its directory and lock, the record, and the verbs that make, list, adopt, sweep and remove it.

mod adopt;
mod dir;
pub(crate) mod ending;
#[cfg(test)]
pub(crate) mod fuzz;
pub(crate) mod list;
pub(crate) mod liveness;
pub(crate) mod prepare;
pub(crate) mod record;
pub(crate) mod remove;
mod shared_copy;
pub(crate) mod uid_pool;

pub(crate) use dir::*;

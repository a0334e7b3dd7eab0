//! System tests of what attackers do: a hostile VMM, a local user without privileges, rival launchers.
//!
//! Each runs launchers as processes of their own, so that a hang, a panic or a growth of one is seen from outside.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod host;
mod launcher;
mod left;
mod local_user;
mod matrix;
mod rivals;
mod usage;
mod verbs;

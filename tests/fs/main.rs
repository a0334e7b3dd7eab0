//! jail-fs on real filesystems, against real attackers: the rows of the threat model by number, and what it promises.
//!
//! Each test that starts with `row_` plays the attack of that number; the rows which are not here are the launcher's.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a broken promise panics, and that is the point"
)]

mod bases;
mod conditions;
mod destinations;
mod devices;
mod faults;
mod ladders;
mod leases;
mod loans;
mod model;
mod ownership;
mod races;
mod reading;
mod removal;
mod restart;
mod scale;
mod sources;
mod support;
mod surface;
mod sys;

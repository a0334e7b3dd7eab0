//! System tests: control groups, on whichever hierarchies this machine has. A file for each promise.
//!
//! Each test runs on every version that can do what it needs, v1 and v2 on a hybrid host, and is skipped where none can.

#![expect(clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod crowd;
mod discovery;
mod example;
mod io;
mod joined_by_settings;
mod kill;
mod lifecycle;
mod limits;
mod memory;
mod owner;
mod placement;
mod readings;
mod rivals;
mod stop;
mod support;
mod time;
mod update;

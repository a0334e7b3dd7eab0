//! docs/jailer-contract.md, line by line, on the stand-in and on the official jailer if one is installed.

mod arguments;
mod control_groups;
mod jail;
mod older;
mod process;
mod rig;

/// The releases the stand-in acts, one on each side of every change.
const RELEASES: [&str; 10] =
    ["1.0.0", "1.1.4", "1.2.0", "1.5.0", "1.6.0", "1.7.0", "1.10.0", "1.13.0", "1.14.1", "1.16.1"];

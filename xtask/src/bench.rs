//! `cargo xtask bench`: builds the package `benches` with optimisation, as users build the crates, and runs it as root.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use testkit::build;

use crate::{binaries, root};

/// Replaces this process by the bench. An argument that the bench does not know is an error of the bench.
pub(crate) fn command(arguments: Vec<OsString>) -> Result<bool> {
    let target = build::target()?;
    let built = Command::new(binaries::cargo())
        .args(["build", "--release", "--quiet", "--package", "benches", "--target-dir"])
        .arg(&target)
        .current_dir(build::workspace())
        .status()
        .context("build the bench")?;
    ensure!(built.success(), "failed to build the bench: {built}");
    let debug = std::env::current_exe()?;
    let dir = debug.parent().and_then(Path::parent).context("find the build")?;
    let stand_ins = build::stand_ins(&target)?;
    match root::again(&dir.join("release/bench"), arguments, root::environment(&stand_ins))? {}
}

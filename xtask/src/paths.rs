//! Where things are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The workspace's root.
pub(crate) fn workspace() -> PathBuf {
    // Cargo says at run time where the package lies, also when the checkout was moved after the build.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_owned)
}

/// Cargo's target directory: this program lies in `<target>/debug/`.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe().context("find the target directory")?;
    let target = program.parent().and_then(Path::parent).context("find the target directory")?;
    Ok(target.to_owned())
}

/// The file that keeps the output of `step`; its directory is made.
pub(crate) fn log(step: &str) -> Result<PathBuf> {
    let logs = target()?.join("xtask").join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    Ok(logs.join(format!("{}.log", step.replace([' ', '/'], "-"))))
}

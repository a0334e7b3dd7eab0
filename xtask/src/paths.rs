//! The directories of the workspace and of this run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

/// Returns the root of the workspace.
pub(crate) fn workspace() -> PathBuf {
    // Cargo sets the variable at run time, so a checkout may move after the build.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_owned)
}

/// Returns cargo's target directory: the directory above this program that cargo marks as a cache.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let mut marked = program.ancestors().skip_while(|dir| !dir.join("CACHEDIR.TAG").is_file());
    let dir = marked.next().context("find the target directory")?;
    // Cargo also marks the directory of a named target inside the target directory.
    let within = marked.next().filter(|dir| dir.join("CACHEDIR.TAG").is_file());
    Ok(within.unwrap_or(dir).to_owned())
}

/// Returns the directory for the logs and machines of this run: the first of `<target>/xtask/run-1`, `run-2`, … that no
/// other process has locked.
pub(crate) fn run() -> Result<&'static Path> {
    static TAKEN: Mutex<Option<&(PathBuf, File)>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((dir, _)) = *taken {
        return Ok(dir);
    }
    for n in 1..1000 {
        let dir = target()?.join(format!("xtask/run-{n}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let lock = File::create(dir.join("lock"))?;
        if lock.try_lock().is_ok() {
            // Leaked: the lock must last until the process exits.
            let (dir, _) = *taken.insert(Box::leak(Box::new((dir, lock))));
            return Ok(dir);
        }
    }
    bail!("too many runs at once in {}", target()?.display())
}

/// Returns the path of the log of `step`, and makes the directory of logs.
pub(crate) fn log(step: &str) -> Result<PathBuf> {
    let logs = run()?.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    Ok(logs.join(format!("{}.log", step.replace([' ', '/'], "-"))))
}

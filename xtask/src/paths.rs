//! The directories of this run.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};
use testkit::build;

/// Returns the directory for the logs and machines of this run: the first of `<target>/xtask/run-1`, `run-2`, … that no
/// other process has locked.
pub(crate) fn run() -> Result<&'static Path> {
    static TAKEN: Mutex<Option<&(PathBuf, File)>> = Mutex::new(None);
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((dir, _)) = *taken {
        return Ok(dir);
    }
    for n in 1..1000 {
        let dir = build::target()?.join(format!("xtask/run-{n}"));
        std::fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
        let lock = File::create(dir.join("lock"))?;
        if lock.try_lock().is_ok() {
            // Leaked: the lock must last until the process exits.
            let (dir, _) = *taken.insert(Box::leak(Box::new((dir, lock))));
            return Ok(dir);
        }
    }
    bail!("too many runs at once in {}", build::target()?.display())
}

/// Returns the path of the log of `step`, and makes the directory of logs.
pub(crate) fn log(step: &str) -> Result<PathBuf> {
    let logs = run()?.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    Ok(logs.join(format!("{}.log", step.replace([' ', '/'], "-"))))
}

//! Where things are.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context as _, Result, bail};

/// The workspace's root.
pub(crate) fn workspace() -> PathBuf {
    // Cargo says at run time where the package lies, also when the checkout was moved after the build.
    let package = std::env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    package.parent().map_or(package.clone(), Path::to_owned)
}

/// Cargo's target directory: this program lies below it, and cargo marks it as a cache.
pub(crate) fn target() -> Result<PathBuf> {
    let program = std::env::current_exe()?;
    let mut marked = program.ancestors().skip_while(|dir| !dir.join("CACHEDIR.TAG").is_file());
    let dir = marked.next().context("find the target directory")?;
    // So is the directory of a named target within.
    let within = marked.next().filter(|dir| dir.join("CACHEDIR.TAG").is_file());
    Ok(within.unwrap_or(dir).to_owned())
}

/// The directory of this run, which no other run on the same target directory has at the same time: its logs, and the
/// disks of its machines. The first that is free of `<target>/xtask/run-1`, `run-2`, …
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
            // Kept to the end of the process, as is the lock.
            let (dir, _) = *taken.insert(Box::leak(Box::new((dir, lock))));
            return Ok(dir);
        }
    }
    bail!("a thousand runs are going on in {}", target()?.display())
}

/// The file that keeps the output of `step`; its directory is made.
pub(crate) fn log(step: &str) -> Result<PathBuf> {
    let logs = run()?.join("logs");
    std::fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    Ok(logs.join(format!("{}.log", step.replace([' ', '/'], "-"))))
}

//! Builds the stand-ins and the guests.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context as _, bail, ensure};

/// Builds the stand-ins and the guests of [`Binaries`](crate::Binaries), and returns the directory, which the caller
/// must name in `MICROVM_TEST_STAND_INS`: `<target_dir>/stand-ins` with `jailer`, `firecracker`, `stub`, `hostile`,
/// `guest.elf`, `guest-idle.elf`, `guest-deaf.elf`.
///
/// The programs are static, because a jail contains no libraries (`.cargo/config.toml`). The build uses the features of
/// the whole workspace, so that cargo compiles no dependency twice.
///
/// # Errors
/// If cargo or rustc fails. The messages of both go to stderr.
pub fn stand_ins(target_dir: &Path) -> anyhow::Result<PathBuf> {
    let dir = target_dir.join("stand-ins");
    fs::create_dir_all(&dir).with_context(|| format!("make {}", dir.display()))?;
    let mut cargo = Command::new(tool("CARGO", "cargo"));
    cargo
        .args([
            "build",
            "--workspace",
            "--all-features",
            "--message-format=json-render-diagnostics",
        ])
        .args(NAMES.iter().flat_map(|name| ["--bin", name]))
        .arg("--target-dir")
        .arg(target_dir)
        .stderr(Stdio::inherit())
        .current_dir(workspace());
    let output = cargo.output().with_context(|| format!("start {cargo:?}"))?;
    if !output.status.success() {
        bail!("{cargo:?}: {}", output.status);
    }
    let built: Vec<PathBuf> =
        String::from_utf8_lossy(&output.stdout).lines().filter_map(executable).collect();
    for name in NAMES {
        let program = built.iter().find(|path| path.ends_with(name));
        install(program.with_context(|| format!("cargo built no {name}"))?, &dir.join(name))?;
    }
    guests(&dir)?;
    Ok(dir)
}

/// The names of the stand-ins.
const NAMES: [&str; 4] = ["jailer", "firecracker", "stub", "hostile"];

/// Returns the program that a message of cargo names.
fn executable(message: &str) -> Option<PathBuf> {
    let message: serde_json::Value = serde_json::from_str(message).ok()?;
    Some(PathBuf::from(message.get("executable")?.as_str()?))
}

/// Builds the three freestanding kernels of `tests/guest` into `dir`, each by one call of rustc.
///
/// # Errors
/// See [`stand_ins`]. Also fails on architectures other than x86-64.
pub fn guests(dir: &Path) -> anyhow::Result<()> {
    ensure!(cfg!(target_arch = "x86_64"), "the guest kernels are x86-64 code");
    let source = workspace().join("tests/guest");
    let mut script = OsString::from("link-arg=-Wl,--script=");
    script.push(source.join("guest.ld"));
    for (name, cfg) in
        [("guest.elf", None), ("guest-idle.elf", Some("idle")), ("guest-deaf.elf", Some("deaf"))]
    {
        let made = dir.join(format!(".{name}-{}", std::process::id()));
        let mut rustc = Command::new(tool("RUSTC", "rustc"));
        rustc
            .args(["--crate-name", "guest", "--crate-type", "bin", "--edition", "2024"])
            .args(["--check-cfg", "cfg(idle, deaf)", "-D", "warnings"])
            .args([
                "-C",
                "panic=abort",
                "-C",
                "opt-level=s",
                "-C",
                "strip=symbols",
                "-C",
                "relocation-model=static",
            ])
            .args(["-C", "link-arg=-nostdlib", "-C", "link-arg=-static", "-C", "link-arg=-no-pie"])
            .args([
                "-C",
                "link-arg=-Wl,--build-id=none,--nmagic,--gc-sections,-z,norelro,-z,nognustack",
                "-C",
            ])
            .arg(&script)
            .args(cfg.map(|cfg| format!("--cfg={cfg}")))
            .arg(source.join("guest.rs"))
            .arg("-o")
            .arg(&made);
        run(rustc)?;
        let size = made.metadata()?.len();
        ensure!(size < 1024, "{name} has {size} bytes, which is too large for a bare kernel");
        place(&made, &dir.join(name))?;
    }
    Ok(())
}

/// Installs a copy without symbols, because each jail gets a copy.
fn install(from: &Path, to: &Path) -> anyhow::Result<()> {
    let aside = to.with_extension(format!("new-{}", std::process::id()));
    let mut strip = Command::new("strip");
    strip.arg("-o").arg(&aside).arg(from);
    run(strip)?;
    place(&aside, to)
}

/// Replaces the old file by the new file, unless both are equal. Another run may depend on the inode of the old file.
fn place(new: &Path, to: &Path) -> anyhow::Result<()> {
    let placed = if fs::read(to).is_ok_and(|old| fs::read(new).is_ok_and(|new| old == new)) {
        fs::remove_file(new)
    } else {
        fs::rename(new, to)
    };
    placed.with_context(|| format!("install {}", to.display()))
}

fn run(mut command: Command) -> anyhow::Result<()> {
    let status = command.status().with_context(|| format!("start {command:?}"))?;
    if !status.success() {
        bail!("{command:?}: {status}");
    }
    Ok(())
}

/// Returns the tool that cargo names in `variable`, or else `name`, for the PATH.
#[must_use]
pub fn tool(variable: &str, name: &str) -> OsString {
    env::var_os(variable).unwrap_or_else(|| name.into())
}

/// Returns the root of the workspace.
#[must_use]
pub fn workspace() -> PathBuf {
    let mut dir = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    dir.pop();
    dir
}

/// Returns cargo's target directory: the directory above this program that cargo marks as a cache.
///
/// # Errors
/// If the program is not in a target directory.
pub fn target() -> anyhow::Result<PathBuf> {
    let program = env::current_exe()?;
    let mut marked = program.ancestors().skip_while(|dir| !dir.join("CACHEDIR.TAG").is_file());
    let dir = marked.next().context("find the target directory")?;
    // Cargo also marks the directory of a named target inside the target directory.
    let within = marked.next().filter(|dir| dir.join("CACHEDIR.TAG").is_file());
    Ok(within.unwrap_or(dir).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{GUEST_LINE, Scratch};

    #[test]
    fn guests_are_small_elf_files() {
        let scratch = Scratch::new("guests");
        guests(scratch.path()).unwrap();
        let has =
            |image: &[u8], text: &str| image.windows(text.len()).any(|at| at == text.as_bytes());
        for (name, mark) in
            [("guest.elf", ""), ("guest-idle.elf", "(idle)"), ("guest-deaf.elf", "(deaf)")]
        {
            let image = fs::read(scratch.join(name)).unwrap();
            assert!(image.starts_with(b"\x7fELF"), "{name}");
            assert!(has(&image, GUEST_LINE), "{name}");
            for other in ["(idle)", "(deaf)"] {
                assert_eq!(has(&image, other), other == mark, "{name}: {other}");
            }
        }
    }
}

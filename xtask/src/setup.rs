//! The programs that the other commands need: installed if this is root on Debian, or else listed.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::{command, paths, root};

/// A program and the Debian package that contains the program.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// The linker of static test programs and stand-ins.
pub(crate) const LINK: &[Tool] = &[tool("cc", "gcc")];

/// The programs that root tests need on this host.
pub(crate) const ROOT_TESTS: &[Tool] = &[
    tool("unshare", "util-linux"),
    tool("mkfs.ext4", "e2fsprogs"),
    tool("mkfs.xfs", "xfsprogs"),
    tool("mkfs.btrfs", "btrfs-progs"),
    tool("strace", "strace"),
    tool("ip", "iproute2"),
];

/// The programs that virtual machines need.
pub(crate) const MACHINES: &[Tool] = &[tool("qemu-system-x86_64", "qemu-system-x86")];

/// Runs `cargo xtask setup`.
pub(crate) fn all() -> Result<()> {
    for tools in [LINK, ROOT_TESTS, MACHINES] {
        ensure(tools)?;
        for tool in tools {
            println!("{}: installed", tool.program);
        }
    }
    Ok(())
}

/// Installs the missing programs with apt-get.
///
/// # Errors
/// If this is not root or the machine has no apt-get; the error lists the missing programs and packages.
pub(crate) fn ensure(tools: &[Tool]) -> Result<()> {
    let missing = missing(tools);
    if missing.is_empty() {
        return Ok(());
    }
    let mut packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    packages.dedup();
    if !root::is_root() || find("apt-get").is_none() {
        let programs: Vec<&str> = missing.iter().map(|tool| tool.program).collect();
        bail!(
            "missing: {}; as root on Debian: apt-get install {}",
            programs.join(", "),
            packages.join(" ")
        );
    }
    let mut progress = Progress::begin("setup");
    // A new machine has no package lists, or old lists.
    let installed = apt(&install(&packages), &mut progress)?
        || (apt(&["update"], &mut progress)? && apt(&install(&packages), &mut progress)?);
    if !installed {
        bail!(
            "apt-get failed to install {}; see {}",
            packages.join(", "),
            paths::log("apt-get")?.display()
        );
    }
    progress.end("ok");
    match self::missing(tools).first() {
        Some(tool) => {
            bail!("{} is missing, although the package {} is installed", tool.program, tool.package)
        }
        None => Ok(()),
    }
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().filter(|tool| find(tool.program).is_none()).copied().collect()
}

/// Finds a program on the PATH, in `/usr/sbin` or in `/sbin`.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_owned()));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn install<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["install", "--yes", "--no-install-recommends"], packages].concat()
}

/// Runs apt-get, which waits up to 300 s for the lock. Returns true on success.
fn apt(arguments: &[&str], progress: &mut Progress) -> Result<bool> {
    let mut apt = Command::new("apt-get");
    apt.args(["--option", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let done = command::run(apt, &paths::log("apt-get")?, progress, |line| Some(line.to_owned()))?;
    Ok(done.status.success())
}

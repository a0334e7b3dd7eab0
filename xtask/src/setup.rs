//! What the other commands need on the machine: installed where this is root on Debian, else named.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::progress::Progress;
use crate::{command, paths, root};

/// A program and the Debian package that has it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

/// What static test programs and stand-ins are linked with.
pub(crate) const LINK: &[Tool] = &[tool("cc", "gcc")];

/// What the root tests need on this host.
pub(crate) const ROOT_TESTS: &[Tool] = &[
    tool("unshare", "util-linux"),
    tool("mkfs.ext4", "e2fsprogs"),
    tool("mkfs.xfs", "xfsprogs"),
    tool("mkfs.btrfs", "btrfs-progs"),
    tool("strace", "strace"),
    tool("ip", "iproute2"),
];

/// What the throw-away machines need.
pub(crate) const MACHINES: &[Tool] = &[tool("qemu-system-x86_64", "qemu-system-x86")];

/// `cargo xtask setup`.
pub(crate) fn all() -> Result<()> {
    for tools in [LINK, ROOT_TESTS, MACHINES] {
        ensure(tools)?;
        for tool in tools {
            println!("{}: there", tool.program);
        }
    }
    Ok(())
}

/// Sees to it that these are there.
///
/// # Errors
/// Names what is missing, and how to get it, where this is not root or the machine has no apt-get.
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
    // A fresh machine has no package lists, or old ones.
    let installed = apt(&install(&packages), &mut progress)?
        || (apt(&["update"], &mut progress)? && apt(&install(&packages), &mut progress)?);
    if !installed {
        bail!(
            "apt-get does not install {}; see {}",
            packages.join(", "),
            paths::log("apt-get")?.display()
        );
    }
    progress.end("ok");
    match self::missing(tools).first() {
        Some(tool) => bail!(
            "{} is not there, although its package {} is installed",
            tool.program,
            tool.package
        ),
        None => Ok(()),
    }
}

fn missing(tools: &[Tool]) -> Vec<Tool> {
    tools.iter().filter(|tool| find(tool.program).is_none()).copied().collect()
}

/// Where a program is, on the PATH or among the programs for root.
pub(crate) fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(|dir| Path::new(dir).to_owned()));
    dirs.map(|dir| dir.join(program)).find(|file| file.is_file())
}

fn install<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    [&["install", "--yes", "--no-install-recommends"], packages].concat()
}

/// Whether apt-get did it. It waits for whoever else is installing something.
fn apt(arguments: &[&str], progress: &mut Progress) -> Result<bool> {
    let mut apt = Command::new("apt-get");
    apt.args(["--option", "DPkg::Lock::Timeout=300"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    let done = command::run(apt, &paths::log("apt-get")?, progress, |line| Some(line.to_owned()))?;
    Ok(done.status.success())
}

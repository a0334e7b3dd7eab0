//! `cargo xtask demo`: runs the example `launch` of the facade with the tiny guest, and then searches the host for
//! remains, without the crates under demonstration.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use testkit::{Binaries, GUEST_LINE};

use crate::{binaries, rooted, setup};

/// The directory of the images and of the jails.
const DIR: &str = "/srv/microvm-demo";
const CGROUP_PARENT: &str = "microvm-demo";
/// A uid that no host is likely to use: a process with this uid is the demo's VM.
const UID: u32 = 59_123;

/// Builds the example as the calling user and runs the example as root. Returns false if something is left on the host.
pub(crate) fn command() -> Result<bool> {
    if std::env::var_os(testkit::STAND_INS_ENV).is_none() {
        setup::ensure(setup::LINK)?;
        let mut cargo = Command::new(binaries::cargo());
        cargo.current_dir(testkit::build::workspace()).args([
            "build",
            "--quiet",
            "--workspace",
            "--all-features",
        ]);
        let built = cargo.args(["--example", "launch"]).status().context("start cargo")?;
        ensure!(built.success(), "failed to build the example");
    }
    rooted()?;
    let shown = show();
    remove_directories();
    shown?;
    let left = left();
    for thing in &left {
        println!("left behind: {thing}");
    }
    if left.is_empty() {
        println!("left behind: no file, mount, control group or process");
    }
    Ok(left.is_empty())
}

fn show() -> Result<()> {
    let binaries = Binaries::find();
    let at = |name: &str| Path::new(DIR).join(name);
    let jails = at("jails");
    fs::create_dir_all(&jails).with_context(|| format!("make {DIR}"))?;
    fs::copy(binaries.idle_guest(), at("vmlinux")).context("copy the guest")?;
    fs::File::create(at("rootfs.ext4"))?.set_len(64 << 20).context("make the disk")?;
    let program = std::env::current_exe()?.with_file_name("examples").join("launch");
    let output = Command::new(&program)
        .arg(binaries.firecracker())
        .args([at("vmlinux"), at("rootfs.ext4")])
        .env("MICROVM_JAILER_BIN", binaries.jailer())
        .env("MICROVM_JAILER_CHROOT_BASE", jails)
        .env("MICROVM_JAILER_CGROUP_PARENT", CGROUP_PARENT)
        .envs(["UID", "GID"].map(|id| (format!("MICROVM_JAILER_{id}"), UID.to_string())))
        .stderr(std::process::Stdio::inherit())
        .output()
        .with_context(|| format!("start {}", program.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    println!("{}", text.trim_end());
    ensure!(output.status.success(), "the example failed: {}", output.status);
    ensure!(text.contains(GUEST_LINE), "the guest printed nothing");
    Ok(())
}

/// Removes the demo's own files, and directories that are empty then.
fn remove_directories() {
    let dir = Path::new(DIR);
    for image in ["vmlinux", "rootfs.ext4"] {
        let _ = fs::remove_file(dir.join(image));
    }
    let jails = dir.join("jails");
    for dir in entries(&jails).into_iter().chain([jails, dir.to_owned()]) {
        // A directory with a jail stays and is reported.
        let _ = fs::remove_dir(dir);
    }
    for group in testkit::cgroups_named(CGROUP_PARENT, "") {
        let _ = fs::remove_dir(group);
    }
}

/// Lists the files, mounts, control groups and processes of the demo.
fn left() -> Vec<String> {
    let mut left = testkit::mounts::below(Path::new(DIR));
    left.extend(Path::new(DIR).exists().then(|| DIR.into()));
    left.extend(testkit::cgroups_named(CGROUP_PARENT, ""));
    let has_uid = |process: &PathBuf| {
        let status = fs::read_to_string(process.join("status")).unwrap_or_default();
        let uids = status.lines().find_map(|line| line.strip_prefix("Uid:")).unwrap_or_default();
        // init reaps the zombies of a dead launcher.
        !status.contains("\nState:\tZ") && uids.split_whitespace().any(|uid| uid == UID.to_string())
    };
    left.extend(entries(Path::new("/proc")).into_iter().filter(has_uid));
    left.iter().map(|path| path.display().to_string()).collect()
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path()).collect()
}

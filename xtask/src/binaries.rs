//! The test binaries, built by cargo as whoever runs xtask.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::counts::Selection;
use crate::progress::Progress;
use crate::{command, paths};

/// A test binary and where it wants to run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TestBinary {
    /// The package it belongs to.
    pub(crate) package: String,
    /// The target's name: the crate's, or the integration test's.
    pub(crate) target: String,
    /// The executable.
    pub(crate) path: PathBuf,
    /// The package's directory, where cargo would run it.
    pub(crate) dir: PathBuf,
}

/// Builds the selected packages' tests with `cargo test --no-run`.
pub(crate) fn build(selection: &Selection, progress: &mut Progress) -> Result<Vec<TestBinary>> {
    let mut cargo = Command::new(cargo());
    cargo.current_dir(paths::workspace()).args([
        "test",
        "--no-run",
        // As the tests without root are built, or all would be built twice.
        "--all-features",
        "--message-format=json-render-diagnostics",
    ]);
    if selection.packages.is_empty() {
        cargo.arg("--workspace");
    }
    for package in &selection.packages {
        cargo.args(["--package", package]);
    }

    let mut binaries = Vec::new();
    let built = command::run(cargo, &paths::log("build tests")?, progress, |line| {
        binaries.extend(executable(line));
        line.trim_start().starts_with("Compiling").then(|| line.trim().to_owned())
    })?;
    if !built.status.success() {
        // Cargo's messages for machines are of no use here.
        let said: Vec<&str> = built.output.lines().filter(|line| !line.starts_with('{')).collect();
        progress.clear();
        eprintln!("{}", said.join("\n"));
        bail!("the tests do not build");
    }
    if binaries.is_empty() {
        bail!("no test binary among the selected packages");
    }
    Ok(binaries)
}

/// The cargo that runs this program.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// The test binary of one of cargo's `compiler-artifact` messages.
fn executable(line: &str) -> Option<TestBinary> {
    #[derive(Deserialize)]
    struct Artifact {
        package_id: String,
        manifest_path: PathBuf,
        target: Target,
        profile: Profile,
        executable: Option<PathBuf>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    #[derive(Deserialize)]
    struct Profile {
        test: bool,
    }
    if !line.starts_with(r#"{"reason":"compiler-artifact""#) {
        return None;
    }
    let artifact: Artifact = serde_json::from_str(line).ok()?;
    Some(TestBinary {
        package: package_name(&artifact.package_id)?.to_owned(),
        target: artifact.target.name,
        path: artifact.executable.filter(|_| artifact.profile.test)?,
        dir: artifact.manifest_path.parent()?.to_owned(),
    })
}

/// The name in a package id: `path+file:///p/tests/fs#fs-tests@0.1.0`, or `path+file:///p/jail-fs#0.1.0`.
fn package_name(id: &str) -> Option<&str> {
    let (url, fragment) = id.split_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => url.rsplit('/').next(),
    }
}

/// The names of the binary's ignored tests that pass the filters, without running any.
pub(crate) fn ignored_tests(binary: &TestBinary, filters: &[String]) -> Result<Vec<String>> {
    let output = Command::new(&binary.path)
        .args(["--list", "--ignored", "--format=terse"])
        .args(filters)
        .current_dir(existing(&binary.dir))
        .output()
        .with_context(|| format!("list the tests of {}", binary.path.display()))?;
    if !output.status.success() {
        bail!(
            "{} does not list its tests: {}",
            binary.path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// The directory, or `/` where it is not there, as in another machine.
fn existing(dir: &Path) -> &Path {
    if dir.is_dir() { dir } else { Path::new("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_have_names() {
        assert_eq!(package_name("path+file:///p/tests/fs#fs-tests@0.1.0"), Some("fs-tests"));
        assert_eq!(package_name("path+file:///p/crates/jail-fs#0.1.0"), Some("jail-fs"));
        assert_eq!(package_name("jail-fs 0.1.0"), None);
    }

    #[test]
    fn artifacts_that_are_no_tests_are_left_out() {
        let line = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///p/a#0.1.0","manifest_path":"/p/a/Cargo.toml","target":{{"name":"a"}},"profile":{{"test":{test}}},"executable":"/t/a-1"}}"#
            )
        };
        assert_eq!(executable(&line(true)).unwrap().dir, Path::new("/p/a"));
        assert!(executable(&line(false)).is_none());
    }
}

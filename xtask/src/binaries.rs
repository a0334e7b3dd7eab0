//! The test binaries, built by cargo as the calling user.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

use crate::counts::Selection;
use crate::progress::Progress;
use crate::{command, paths};

/// A test binary and the directory to run the binary in.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct TestBinary {
    /// The name of the package.
    pub(crate) package: String,
    /// The target's name: the crate's, or the integration test's.
    pub(crate) target: String,
    /// The executable.
    pub(crate) path: PathBuf,
    /// The package's directory, in which cargo runs tests.
    pub(crate) dir: PathBuf,
}

/// Builds the selected packages' tests with `cargo test --no-run`.
pub(crate) fn build(selection: &Selection, progress: &mut Progress) -> Result<Vec<TestBinary>> {
    let mut cargo = Command::new(cargo());
    cargo.current_dir(testkit::build::workspace()).args([
        "test",
        "--no-run",
        // The same features as the tests without root, or cargo would build everything twice.
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
        // Cargo's JSON messages are not for people.
        let messages: Vec<&str> =
            built.output.lines().filter(|line| !line.starts_with('{')).collect();
        progress.clear();
        eprintln!("{}", messages.join("\n"));
        bail!("failed to build the tests");
    }
    if binaries.is_empty() {
        bail!("the selected packages have no test binary");
    }
    Ok(binaries)
}

/// Returns the path of the cargo that runs this program.
pub(crate) fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}

/// Returns the test binary that a `compiler-artifact` message of cargo names.
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

/// Returns the name in a package id: `path+file:///p/tests/fs#fs-tests@0.1.0`, or `path+file:///p/jail-fs#0.1.0`.
fn package_name(id: &str) -> Option<&str> {
    let (url, fragment) = id.split_once('#')?;
    match fragment.split_once('@') {
        Some((name, _)) => Some(name),
        None => url.rsplit('/').next(),
    }
}

/// Lists the binary's ignored tests that match the filters.
pub(crate) fn ignored_tests(binary: &TestBinary, filters: &[String]) -> Result<Vec<String>> {
    let output = Command::new(&binary.path)
        .args(["--list", "--ignored", "--format=terse"])
        .args(filters)
        .current_dir(existing(&binary.dir))
        .output()
        .with_context(|| format!("list the tests of {}", binary.path.display()))?;
    if !output.status.success() {
        bail!(
            "failed to list the tests of {}: {}",
            binary.path.display(),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let list = String::from_utf8_lossy(&output.stdout);
    Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// Returns `dir`, or `/` if the directory does not exist, as in another machine.
fn existing(dir: &Path) -> &Path {
    if dir.is_dir() { dir } else { Path::new("/") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn package_ids_contain_names() {
        assert_eq!(package_name("path+file:///p/tests/fs#fs-tests@0.1.0"), Some("fs-tests"));
        assert_eq!(package_name("path+file:///p/crates/jail-fs#0.1.0"), Some("jail-fs"));
        assert_eq!(package_name("jail-fs 0.1.0"), None);
    }

    #[test]
    fn only_test_artifacts_are_kept() {
        let line = |test: bool| {
            format!(
                r#"{{"reason":"compiler-artifact","package_id":"path+file:///p/a#0.1.0","manifest_path":"/p/a/Cargo.toml","target":{{"name":"a"}},"profile":{{"test":{test}}},"executable":"/t/a-1"}}"#
            )
        };
        assert_eq!(executable(&line(true)).unwrap().dir, Path::new("/p/a"));
        assert!(executable(&line(false)).is_none());
    }
}

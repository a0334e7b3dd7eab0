//! The repository's files, and the declarations of the packages.

use std::fs;
use std::path::{Path, PathBuf};

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// Every file below `dir` with the extension, build output and history left out, sorted; paths relative to the root.
pub(crate) fn files(dir: &str, extension: &str) -> Vec<PathBuf> {
    let top = root();
    let mut found = Vec::new();
    let mut dirs = vec![top.join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy();
            if path.is_dir() {
                if name != "target" && name != ".git" {
                    dirs.push(path);
                }
            } else if path.extension().is_some_and(|found| found == extension) {
                found.push(path.strip_prefix(&top).unwrap().to_owned());
            }
        }
    }
    assert!(!found.is_empty(), "{dir} holds no .{extension}: the rule looks at nothing");
    found.sort();
    found
}

/// The text of a file of the repository.
pub(crate) fn text(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|err| panic!("read {}: {err}", path.display()))
}

/// # Panics
/// When something was found, one a line.
#[track_caller]
pub(crate) fn assert_none(rule: &str, found: &[String]) {
    assert!(found.is_empty(), "{rule}:\n  {}", found.join("\n  "));
}

#[test]
fn top_level_is_known() {
    const ENTRIES: &[&str] = &[
        ".cargo",
        ".ci",
        ".config",
        ".editorconfig",
        ".git",
        ".gitattributes",
        ".github",
        ".gitignore",
        ".idea",
        ".vscode",
        "CHANGELOG.md",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "Cargo.lock",
        "Cargo.toml",
        "LICENSE-APACHE",
        "LICENSE-MIT",
        "README.md",
        "clippy.toml",
        "crates",
        "deny.toml",
        "docs",
        "rust-toolchain.toml",
        "rustfmt.toml",
        "target",
        "tests",
    ];
    let strangers: Vec<_> = fs::read_dir(root())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name != "xtask" && !ENTRIES.contains(&name.as_str()))
        .collect();
    assert_none("entries nobody decided on", &strangers);
}

#[test]
fn both_licences_are_declared() {
    assert!(text("LICENSE-MIT").contains("Permission is hereby granted, free of charge"));
    assert!(text("LICENSE-APACHE").contains("Version 2.0, January 2004"));
    assert!(text("Cargo.toml").contains("license = \"MIT OR Apache-2.0\""));
}

#[test]
fn packages_share_their_settings() {
    const SHARED: [&str; 4] = [
        "[lints]\nworkspace = true",
        "version.workspace = true",
        "edition.workspace = true",
        "license.workspace = true",
    ];
    let mut missing = Vec::new();
    for manifest in files("", "toml").iter().filter(|path| path.ends_with("Cargo.toml")) {
        let text = text(manifest);
        // A workspace shares; the one beside ours exists to stay apart from it.
        if text.lines().any(|line| line.trim() == "[workspace]") {
            continue;
        }
        // The published crates are documented and found; the others must never be published.
        let published = manifest.starts_with("crates");
        let own = if published {
            ["rust-version.workspace = true", "documentation = ", "keywords = ", "categories = "]
                .as_slice()
        } else {
            ["publish.workspace = true"].as_slice()
        };
        let missed = SHARED.iter().chain(own).filter(|shared| !text.contains(**shared));
        missing.extend(
            missed.map(|shared| format!("{}: {}", manifest.display(), shared.replace('\n', " "))),
        );
    }
    assert_none("packages that go their own way", &missing);
}

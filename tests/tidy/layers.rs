//! The dependencies of the crates: they point down, and each crate has at most its listed number of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::repository::{assert_none, files, root, text};

/// The allowed dependencies of each published crate, our own crates first.
const LAYERS: [(&str, &[&str]); 4] = [
    ("jail-cmd", &["serde", "sha2", "thiserror"]),
    ("jail-cgroup", &["rustix", "serde", "thiserror"]),
    ("jail-fs", &["cap-std", "nix", "rustix", "serde", "thiserror"]),
    (
        "microvm-runtime",
        &[
            "jail-cgroup",
            "jail-cmd",
            "jail-fs",
            "httparse",
            "libc",
            "rustix",
            "serde",
            "serde_json",
            "sha2",
            "thiserror",
            "tracing",
        ],
    ),
];

/// The largest number of crates in the dependency tree of each published crate, the crate included.
const WEIGHTS: [(&str, usize); 3] =
    [("jail-cmd", 18), ("jail-cgroup", 32), ("microvm-runtime", 50)];

fn cargo(args: &[&str]) -> String {
    let output = Command::new(env!("CARGO")).args(args).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Returns the packages of the workspace, from `cargo metadata`.
fn packages() -> Vec<Value> {
    let text = cargo(&["metadata", "--format-version", "1", "--no-deps", "--offline"]);
    let metadata: Value = serde_json::from_str(&text).unwrap();
    metadata["packages"].as_array().unwrap().clone()
}

/// Returns the names of a package's dependencies, or of the dev-dependencies.
fn dependencies(package: &Value, dev: bool) -> BTreeSet<String> {
    let dependencies = package["dependencies"].as_array().unwrap().iter();
    dependencies
        .filter(|dependency| (dependency["kind"] == "dev") == dev)
        .map(|dependency| dependency["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn arrows_point_down() {
    let packages = packages();
    let mut wrong = Vec::new();
    for (name, allowed) in LAYERS {
        let package = packages.iter().find(|package| package["name"] == name).unwrap();
        let stray =
            dependencies(package, false).into_iter().filter(|it| !allowed.contains(&it.as_str()));
        wrong.extend(stray.map(|stray| format!("{name} builds on {stray}")));
    }
    assert_none("arrows that point up or out", &wrong);
}

#[test]
fn every_published_crate_is_in_the_table() {
    let known: BTreeSet<_> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let published: BTreeSet<_> = packages()
        .iter()
        .filter(|package| package["manifest_path"].as_str().unwrap().contains("/crates/"))
        .map(|package| package["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(published, known);
}

#[test]
fn published_crates_link_no_tests() {
    let mut wrong = Vec::new();
    for package in packages() {
        let name = package["name"].as_str().unwrap();
        if LAYERS.iter().any(|(published, _)| *published == name) {
            let used =
                dependencies(&package, false).into_iter().chain(dependencies(&package, true));
            let ours =
                used.filter(|it| it == "testkit" || it.starts_with("stand-in-") || it == "xtask");
            wrong.extend(ours.map(|it| format!("{name} uses {it}")));
        }
    }
    assert_none("tests in what is published", &wrong);
}

#[test]
fn crates_stay_small() {
    for (name, most) in WEIGHTS {
        let tree = cargo(&[
            "tree",
            "--edges",
            "normal",
            "--prefix",
            "none",
            "--package",
            name,
            "--offline",
        ]);
        // A crate that is met again is marked with (*).
        let crates = tree.lines().map(|line| line.trim_end_matches(" (*)"));
        let crates: BTreeSet<_> = crates.filter(|line| !line.trim().is_empty()).collect();
        assert!(
            crates.len() <= most,
            "{name} is {} crates, more than {most}: {crates:#?}",
            crates.len()
        );
        assert!(crates.len() > 1, "{name}: the tree was not read");
    }
}

/// Returns true if a source names the crate: in a path, as a macro or as an attribute.
fn names(source: &str, crate_: &str) -> bool {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    source.match_indices(crate_).any(|(at, _)| {
        let before = source[..at].chars().next_back();
        let after = source[at + crate_.len()..].chars().next();
        !before.is_some_and(is_word) && !after.is_some_and(is_word)
    })
}

#[test]
fn every_dependency_is_used() {
    let mut unused = Vec::new();
    let mut checked = 0;
    for package in packages() {
        let manifest = Path::new(package["manifest_path"].as_str().unwrap());
        let dir = manifest.parent().unwrap().strip_prefix(root()).unwrap().to_owned();
        let sources: Vec<_> =
            files(dir.to_str().unwrap(), "rs").into_iter().map(|path| text(&path)).collect();
        for dependency in package["dependencies"].as_array().unwrap() {
            let name = dependency["rename"].as_str().or(dependency["name"].as_str()).unwrap();
            checked += 1;
            if !sources.iter().any(|source| names(source, &name.replace('-', "_"))) {
                unused.push(format!("{}: {name}", package["name"].as_str().unwrap()));
            }
        }
    }
    assert!(checked > 20, "the rule looks at nothing");
    assert_none("dependencies that no source names", &unused);
}

#[test]
fn only_whole_names_count() {
    assert!(names("use libc::c_int;", "libc") && names("thiserror::Error", "thiserror"));
    assert!(!names("use libc_extra::x;", "libc") && !names("xlibc", "libc"));
}

//! Rules for the sources.

use std::path::{Path, PathBuf};

use super::repository::{assert_none, files, text};

/// The largest number of lines of code in a file of a crate, without unit tests and comments.
const LONGEST: usize = 400;

/// Returns the lines of code of a source, numbered from 1, without comments; with the unit tests if `tests` is true.
fn code(path: &Path, tests: bool) -> Vec<(usize, String)> {
    let text = text(path);
    text.lines()
        .enumerate()
        .take_while(|(_, line)| tests || *line != "#[cfg(test)]")
        .map(|(index, line)| (index + 1, without_comment(line).to_owned()))
        .filter(|(_, line)| !line.trim().is_empty())
        .collect()
}

/// Returns the part of a line before `//`, except the `//` of an address such as `https://`.
fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("//") {
        let at = from + at;
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// Returns the identifiers and numbers of a line.
fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Returns the lines below `dir` for which `bad` returns true, as `file:line: text`.
fn hits(dir: &str, tests: bool, mut bad: impl FnMut(&Path, &str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for path in files(dir, "rs") {
        for (number, line) in code(&path, tests) {
            if bad(&path, &line) {
                found.push(format!("{}:{number}: {}", path.display(), line.trim()));
            }
        }
    }
    found
}

/// Returns true for a crate's `sys.rs` and for a file of the folder `sys`.
fn is_sys(path: &Path) -> bool {
    path.ends_with("sys.rs") || path.parent().is_some_and(|parent| parent.ends_with("sys"))
}

#[test]
fn unsafe_is_in_sys_rs_alone() {
    let outside = hits("", true, |path, line| {
        let keyword = words(line).any(|word| word == "unsafe") && !line.contains('"');
        keyword && !is_sys(path)
    });
    assert_none("unsafe outside sys.rs", &outside);
    let inside = hits("", true, |path, line| is_sys(path) && line.contains("unsafe {"));
    assert!(!inside.is_empty(), "the rule looks at nothing");
}

#[test]
fn jail_cmd_touches_nothing() {
    const MODULES: [&str; 6] =
        ["std::fs", "std::process", "std::env", "std::net", "std::os", "std::io"];
    let found = hits("crates/jail-cmd/src", false, |_, line| {
        MODULES.iter().any(|module| line.contains(module))
            || line.contains("use std::{")
            || words(line).any(|word| matches!(word, "println" | "eprintln"))
    });
    assert_none("input and output in jail-cmd", &found);
}

#[test]
fn jail_fs_knows_no_vm() {
    let found = hits("crates/jail-fs/src", true, |_, line| {
        words(&line.to_lowercase())
            .flat_map(|word| word.split('_'))
            .any(|word| matches!(word, "vm" | "vms" | "vmm" | "jailer" | "firecracker" | "microvm"))
    });
    assert_none("jail-fs speaks of directories, artifacts and owners", &found);
}

#[test]
fn jail_cgroup_knows_no_jailer_type() {
    let found = hits("crates/jail-cgroup/src", true, |_, line| {
        words(&line.to_lowercase())
            .any(|word| matches!(word, "jail_cmd" | "jail_fs" | "jailer" | "firecracker"))
    });
    assert_none("jail-cgroup is about any process", &found);
}

#[test]
fn only_the_facade_starts_processes() {
    let mut found = Vec::new();
    for crate_ in ["jail-cmd", "jail-cgroup", "jail-fs"] {
        found.extend(hits(&format!("crates/{crate_}/src"), false, |_, line| {
            line.contains("std::process") && !line.contains("std::process::id")
                || line.contains("Command::new")
        }));
    }
    assert_none("processes below the facade", &found);
    let facade = hits("crates/microvm-runtime/src", false, |_, line| line.contains("Command::new"));
    assert!(!facade.is_empty(), "the rule looks at nothing");
}

#[test]
fn ignored_tests_need_root() {
    const REASON: &str = "#[ignore = \"needs root: cargo xtask test-root\"]";
    let mut root = 0;
    let found = hits("", true, |_, line| {
        let attribute = line.trim();
        root += usize::from(attribute == REASON);
        attribute.starts_with("#[ignore") && attribute != REASON
    });
    assert_none("ignored for another reason", &found);
    assert!(root > 0, "the rule looks at nothing");
}

#[test]
fn lints_are_never_allowed() {
    let found = hits("", true, |_, line| {
        let attribute = line.trim();
        attribute.starts_with("#[allow(") || attribute.starts_with("#![allow(")
    });
    assert_none("bare allows", &found);
}

#[test]
fn files_stay_short() {
    let sources = files("crates", "rs").into_iter().filter(|path| is_source(path));
    let long: Vec<_> = sources
        .map(|path| (code(&path, false).len(), path))
        .filter(|(lines, _)| *lines > LONGEST)
        .map(|(lines, path)| format!("{}: {lines} lines of code", path.display()))
        .collect();
    assert_none("files that do more than one thing", &long);
}

#[test]
fn lib_rs_only_declares() {
    let libs: Vec<PathBuf> =
        files("crates", "rs").into_iter().filter(|path| path.ends_with("src/lib.rs")).collect();
    assert_eq!(libs.len(), 4);
    let mut found = Vec::new();
    for path in libs {
        let code = code(&path, false);
        let work = code.iter().filter(|(_, line)| {
            words(line).any(|word| matches!(word, "fn" | "impl" | "struct" | "enum"))
        });
        found.extend(
            work.map(|(number, line)| format!("{}:{number}: {}", path.display(), line.trim())),
        );
    }
    assert_none("work in lib.rs", &found);
}

fn is_source(path: &Path) -> bool {
    path.components().any(|part| part.as_os_str() == "src")
}

#[test]
fn comments_are_told_from_code() {
    assert_eq!(without_comment("let x = 1; // unsafe"), "let x = 1; ");
    assert_eq!(without_comment("    /// docs"), "    ");
    assert_eq!(without_comment("\"https://x\" // y"), "\"https://x\" ");
}

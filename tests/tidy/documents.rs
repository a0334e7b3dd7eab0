//! Each test that a document names exists.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::repository::{assert_none, files, root, text};

/// Returns the functions marked as tests, by file.
fn tests() -> BTreeMap<PathBuf, BTreeSet<String>> {
    let mut found: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for path in files("", "rs") {
        let text = text(&path);
        let mut marked = false;
        for line in text.lines().map(str::trim) {
            let function = line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
            match function {
                Some(name) if marked => {
                    found.entry(path.clone()).or_default().insert(name.to_owned());
                    marked = false;
                }
                Some(_) => {}
                // Attributes, comments and a property's own head may stand between the mark and the function.
                None => marked |= line.starts_with("#[test]"),
            }
        }
    }
    found
}

/// The code spans of a document.
fn spans(document: &str) -> impl Iterator<Item = &str> {
    document
        .lines()
        .filter(|line| line.matches('`').count() % 2 == 0)
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// Returns the test that a span names, with the file or module: `dir/file.rs::name`, `module::name`, or a bare name of
/// at least five words, as only tests have.
fn named(span: &str) -> Option<(Option<&str>, &str)> {
    let lower = |text: &str| {
        !text.is_empty()
            && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    let (place, name) = match span.rsplit_once("::") {
        Some((place, name)) => (Some(place), name),
        None => (None, span),
    };
    let words = name.split('_').count();
    let is_test = match place {
        Some(place) if place.ends_with(".rs") => true,
        Some(place) => lower(place) && words >= 4,
        None => words >= 5,
    };
    (is_test && lower(name)).then_some((place, name))
}

/// Returns true if `place` means this file: the file's path, a module of that file, or a module's name.
fn is_at(file: &Path, place: &str) -> bool {
    match place.strip_suffix(".rs") {
        Some(stem) => file == Path::new(place) || file.starts_with(stem),
        None => place.split("::").last().is_some_and(|module| {
            file.file_stem().is_some_and(|stem| stem == module)
                || file.parent().is_some_and(|dir| dir.ends_with(module))
        }),
    }
}

#[test]
fn named_tests_exist() {
    let tests = tests();
    let mut checked = 0;
    let mut missing = Vec::new();
    for document in files("docs", "md").into_iter().chain([PathBuf::from("README.md")]) {
        for (place, name) in spans(&text(&document)).filter_map(named) {
            checked += 1;
            let exists = tests.iter().any(|(file, names)| {
                place.is_none_or(|place| is_at(file, place)) && names.contains(name)
            });
            if !exists {
                let place = place.map(|place| format!("{place}::")).unwrap_or_default();
                missing.push(format!("{}: {place}{name}", document.display()));
            }
        }
    }
    assert_none("tests that are not there", &missing);
    assert!(checked > 50, "only {checked} names were found: the rule looks at nothing");
}

#[test]
fn files_that_documents_name_exist() {
    let mut missing = Vec::new();
    for document in files("docs", "md").into_iter().chain([PathBuf::from("README.md")]) {
        for span in spans(&text(&document)) {
            let file = span.split("::").next().unwrap_or(span);
            let ours =
                ["crates/", "tests/", "docs/", "xtask/"].iter().any(|top| file.starts_with(top));
            let exact = !file.contains(['*', '<', ' ', '{']);
            if ours && exact && !root().join(file).exists() {
                missing.push(format!("{}: {file}", document.display()));
            }
        }
    }
    assert_none("files that are not there", &missing);
}

/// Rows of the threat model that tests hold by another name.
const HELD_BY_ANOTHER_NAME: [(u32, &str); 2] =
    [(34, "covered_mounts_do_not_count"), (35, "reaped_strangers_never_succeed")];

#[test]
fn every_attack_is_a_test() {
    let names: BTreeSet<_> = tests().into_values().flatten().collect();
    let model = text("docs/threat-model.md");
    let table = model.split("\n## Attacks\n").nth(1).unwrap().lines();
    let table =
        table.skip_while(|line| !line.starts_with("| ")).take_while(|line| !line.is_empty());
    let rows: Vec<u32> = table
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next()?.parse().ok())
        .collect();
    assert!((1..=58).eq(rows.iter().copied().take(58)), "rows are missing: {rows:?}");
    assert!(
        rows.is_sorted_by(|one, next| one < next),
        "a number stands twice, or in no order: {rows:?}"
    );
    let missing: Vec<_> = rows
        .iter()
        .filter(|row| {
            let numbered = names.iter().any(|name| name.starts_with(&format!("row_{row:02}_")));
            let other = HELD_BY_ANOTHER_NAME.iter().find(|(number, _)| number == *row);
            !numbered && other.is_none_or(|(_, name)| !names.contains(*name))
        })
        .map(|row| format!("row {row}"))
        .collect();
    assert_none("attacks without a test", &missing);
}

#[test]
fn test_names_are_recognised() {
    assert_eq!(named("tests/launch/compat.rs::x"), Some((Some("tests/launch/compat.rs"), "x")));
    assert_eq!(named("races::row_04_race_for_it"), Some((Some("races"), "row_04_race_for_it")));
    assert_eq!(named("ids_never_share_a_jail"), Some((None, "ids_never_share_a_jail")));
    for other in [
        "io.max",
        "cgroup.subtree_control",
        "no_new_privs",
        "JailId::for_vm",
        "jail_cmd::Feature",
        "a b_c_d_e_f",
    ] {
        assert_eq!(named(other), None, "{other}");
    }
}

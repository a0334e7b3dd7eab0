//! Each test on a fake control group tree names a test on a real hierarchy.

use super::repository::{assert_none, files, text};

/// Returns the tests on fake trees in a source, each with the twins that the doc comment names.
fn tests_on_fakes(source: &str) -> Vec<(String, Vec<String>)> {
    let Some((_, tests)) = source.split_once("use crate::fake::") else { return Vec::new() };
    let mut found = Vec::new();
    let mut twins = Vec::new();
    for line in tests.lines().map(str::trim) {
        if let Some(named) = line.strip_prefix("/// Twin: ") {
            twins = named.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        } else if let Some(name) =
            line.strip_prefix("fn ").and_then(|rest| rest.strip_suffix("() {"))
        {
            found.push((name.to_owned(), std::mem::take(&mut twins)));
        }
    }
    found
}

#[test]
fn fakes_have_twins() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for path in files("crates/jail-cgroup/src", "rs") {
        for (name, twins) in tests_on_fakes(&text(&path)) {
            checked += 1;
            if twins.is_empty() {
                wrong.push(format!("{}: {name} names none", path.display()));
            }
            for twin in twins {
                let (module, test) = twin.split_once("::").unwrap();
                let real = text(format!("tests/cgroup/{module}.rs"));
                let marked =
                    format!("#[ignore = \"needs root: cargo xtask test-root\"]\nfn {test}() {{");
                if !real.contains(&marked) {
                    wrong
                        .push(format!("{}: {name}: no root test is called {twin}", path.display()));
                }
            }
        }
    }
    assert_none("tests on fake trees without a twin", &wrong);
    assert!(checked > 10, "only {checked} tests were found: the rule looks at nothing");
}

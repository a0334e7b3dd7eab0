//! Only a crate's `sys` module makes system calls, and each difficult call stands in one file.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, File, Item, ItemUse, UseTree};

use super::repository::{assert_none, files, text};

/// The crates that make system calls.
const CRATES: [&str; 3] = ["jail-cgroup", "jail-fs", "microvm-runtime"];

/// The libraries of system calls.
const LIBRARIES: [&str; 3] = ["libc", "nix", "rustix"];

/// The calls that need a loop or a check around them, and are therefore wrapped once a crate.
const WRAPPED: [&str; 2] = ["openat2", "pidfd_open"];

/// The names that a file mentions, in paths and imports, without the tests.
#[derive(Default)]
struct Names {
    found: BTreeSet<String>,
    /// The modules that are compiled for tests alone.
    test_modules: BTreeSet<String>,
}

impl Names {
    fn of(file: &File) -> Self {
        let mut names = Self::default();
        names.visit_file(file);
        names
    }

    fn import(&mut self, tree: &UseTree) {
        match tree {
            UseTree::Path(path) => {
                self.found.insert(path.ident.to_string());
                self.import(&path.tree);
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.import(tree)),
            UseTree::Name(name) => drop(self.found.insert(name.ident.to_string())),
            UseTree::Rename(name) => drop(self.found.insert(name.ident.to_string())),
            UseTree::Glob(_) => {}
        }
    }
}

impl<'ast> Visit<'ast> for Names {
    fn visit_item(&mut self, item: &'ast Item) {
        match item {
            Item::Mod(module) if is_for_tests(&module.attrs) => {
                self.test_modules.insert(module.ident.to_string());
            }
            Item::Fn(function) if is_for_tests(&function.attrs) => {}
            item => visit::visit_item(self, item),
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        if !is_for_tests(&item.attrs) {
            self.import(&item.tree);
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        self.found.extend(path.segments.iter().map(|segment| segment.ident.to_string()));
        visit::visit_path(self, path);
    }
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        let test = |path: syn::Path| path.is_ident("test");
        attribute.path().is_ident("cfg") && attribute.parse_args::<syn::Path>().is_ok_and(test)
    })
}

/// Returns the files of a crate that are not for tests alone, with the names in each file.
fn sources(crate_: &str) -> Vec<(PathBuf, Names)> {
    let read = |path: PathBuf| {
        let names = Names::of(&syn::parse_file(&text(&path)).unwrap());
        (path, names)
    };
    let all: Vec<_> = files(&format!("crates/{crate_}/src"), "rs").into_iter().map(read).collect();
    let tests: BTreeSet<_> =
        all.iter().flat_map(|(_, names)| names.test_modules.iter().cloned()).collect();
    let is_test = |path: &Path| {
        let mut parts = path.iter().map(|part| Path::new(part).file_stem().unwrap());
        parts.any(|part| tests.contains(part.to_str().unwrap()) && part != "tests")
    };
    all.into_iter().filter(|(path, _)| !is_test(path)).collect()
}

fn is_sys(path: &Path) -> bool {
    path.iter().any(|part| part == "sys" || part == "sys.rs")
}

#[test]
fn only_sys_makes_system_calls() {
    let mut wrong = Vec::new();
    for crate_ in CRATES {
        let sources = sources(crate_);
        let (sys, others): (Vec<_>, Vec<_>) = sources.iter().partition(|(path, _)| is_sys(path));
        let named =
            |names: &Names| LIBRARIES.iter().find(|name| names.found.contains(**name)).copied();
        assert!(sys.iter().any(|(_, names)| named(names).is_some()), "{crate_}: nothing was found");
        wrong.extend(others.into_iter().filter_map(|(path, names)| {
            Some(format!("{} names {}", path.display(), named(names)?))
        }));
    }
    assert_none("files outside `sys` that name a library of system calls", &wrong);
}

#[test]
fn difficult_calls_are_wrapped_once() {
    let mut wrong = Vec::new();
    let mut checked = 0;
    for crate_ in CRATES {
        let sources = sources(crate_);
        for call in WRAPPED {
            let users = sources.iter().filter(|(_, names)| names.found.contains(call)).count();
            checked += users;
            if users > 1 {
                wrong.push(format!("{crate_}: {call} stands in {users} files"));
            }
        }
        let parsers = sources.iter().filter(|(path, _)| path.ends_with("mountinfo.rs")).count();
        if parsers > 1 {
            wrong.push(format!("{crate_}: {parsers} parsers of mountinfo"));
        }
    }
    assert!(checked >= 5, "only {checked} calls were found");
    assert_none("calls that are wrapped twice", &wrong);
}

//! Imports inside a crate run one way: no two files import each other, directly or through others.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use syn::visit::{self, Visit};
use syn::{Attribute, Item, ItemMod, ItemUse, UseTree, Visibility};

use super::repository::{assert_none, files, root};

/// The crates that the rule holds for.
const CRATES: &[&str] = &["jail-cmd", "jail-cgroup", "jail-fs", "microvm-runtime"];

/// A path from a crate's root: `["vmm", "pidfd", "kill"]`.
type Segments = Vec<String>;

/// The files of one crate, by module path, and the names that each hands on from another.
#[derive(Default)]
struct Modules {
    files: BTreeMap<Segments, PathBuf>,
    reexports: BTreeMap<Segments, BTreeMap<String, Segments>>,
    paths: BTreeMap<Segments, BTreeSet<Segments>>,
}

impl Modules {
    fn of(crate_: &Path) -> Self {
        let mut modules = Self::default();
        let source = crate_.join("src");
        for path in files(source.to_str().unwrap(), "rs") {
            let module = module(path.strip_prefix(&source).unwrap());
            let file = syn::parse_file(&std::fs::read_to_string(root().join(&path)).unwrap());
            let mut reader = Reader { module: module.clone(), modules: &mut modules };
            reader.visit_file(&file.unwrap());
            modules.files.insert(module, path);
        }
        modules
    }

    /// The module that defines the item at `path`; `None` if the path leads out of the crate.
    fn home(&self, path: &[String], depth: usize) -> Option<Segments> {
        let length = (0..=path.len()).rev().find(|n| self.files.contains_key(&path[..*n]))?;
        let module = path[..length].to_vec();
        let name = path.get(length);
        let target = name.and_then(|name| self.reexports.get(&module)?.get(name));
        match target {
            Some(target) if depth > 0 => self.home(target, depth - 1),
            _ => Some(module),
        }
    }

    fn imports(&self) -> BTreeMap<Segments, BTreeSet<Segments>> {
        let homes = |(module, paths): (&Segments, &BTreeSet<Segments>)| {
            let homes = paths.iter().filter_map(|path| self.home(path, 8));
            (module.clone(), homes.filter(|home| home != module).collect())
        };
        self.paths.iter().map(homes).collect()
    }
}

/// `vmm/pidfd.rs` and `vmm/pidfd/mod.rs` are the module `vmm::pidfd`.
fn module(path: &Path) -> Segments {
    let mut parts: Segments =
        path.with_extension("").iter().map(|part| part.to_str().unwrap().to_owned()).collect();
    if parts.last().is_some_and(|last| matches!(last.as_str(), "lib" | "main" | "mod")) {
        parts.pop();
    }
    parts
}

/// Collects the paths of a file that lead into the same crate, without the unit tests.
struct Reader<'a> {
    module: Segments,
    modules: &'a mut Modules,
}

impl Reader<'_> {
    /// The path from the crate's root; `None` of one that begins with another crate's name or a local one.
    fn absolute(&self, path: &[String]) -> Option<Segments> {
        let mut from = match path.first()?.as_str() {
            "crate" => Vec::new(),
            "self" => self.module.clone(),
            "super" => self.module.split_last()?.1.to_vec(),
            _ => return None,
        };
        let rest = path[1..].iter();
        for part in rest {
            match part.as_str() {
                "super" => drop(from.pop()),
                part => from.push(part.to_owned()),
            }
        }
        Some(from)
    }

    fn take(&mut self, path: &[String]) {
        if let Some(path) = self.absolute(path) {
            self.modules.paths.entry(self.module.clone()).or_default().insert(path);
        }
    }

    /// A `pub use` hands a name on: whoever takes it from here imports the file that defines it.
    fn hand_on(&mut self, path: &[String], name: &str) {
        let local = [vec!["self".to_owned()], path.to_vec()].concat();
        if let Some(target) = self.absolute(path).or_else(|| self.absolute(&local)) {
            let names = self.modules.reexports.entry(self.module.clone()).or_default();
            names.insert(name.to_owned(), target);
        }
    }
}

impl<'ast> Visit<'ast> for Reader<'_> {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes: &[Attribute] = match item {
            Item::Mod(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            _ => &[],
        };
        if !attributes.iter().any(is_for_tests) {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        // A module within the file is part of the file; `super` in it is the file itself.
        if let Some((_, items)) = &item.content {
            self.module.push(item.ident.to_string());
            let inner = self.module.clone();
            items.iter().for_each(|item| self.visit_item(item));
            self.module.pop();
            let paths = self.modules.paths.remove(&inner).unwrap_or_default();
            self.modules.paths.entry(self.module.clone()).or_default().extend(paths);
        }
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        let handed_on = !matches!(item.vis, Visibility::Inherited);
        for (path, name) in leaves(&item.tree) {
            if handed_on { self.hand_on(&path, &name) } else { self.take(&path) }
        }
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let names: Segments = path.segments.iter().map(|part| part.ident.to_string()).collect();
        if names.len() > 1 {
            self.take(&names);
        }
        visit::visit_path(self, path);
    }
}

fn is_for_tests(attribute: &Attribute) -> bool {
    attribute.path().is_ident("cfg")
        && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
}

/// Returns each path of a `use` with the local name.
fn leaves(tree: &UseTree) -> Vec<(Segments, String)> {
    let below = |first: String, tree: &UseTree| {
        let below = leaves(tree).into_iter();
        below.map(|(path, name)| ([vec![first.clone()], path].concat(), name)).collect()
    };
    match tree {
        UseTree::Path(path) => below(path.ident.to_string(), &path.tree),
        UseTree::Group(group) => group.items.iter().flat_map(leaves).collect(),
        UseTree::Name(name) if name.ident == "self" => vec![(Vec::new(), String::new())],
        UseTree::Name(name) => vec![(vec![name.ident.to_string()], name.ident.to_string())],
        UseTree::Rename(rename) => {
            vec![(vec![rename.ident.to_string()], rename.rename.to_string())]
        }
        _ => vec![(Vec::new(), "*".to_owned())],
    }
}

/// The files that can be reached from each other, a circle a line.
fn circles(imports: &BTreeMap<Segments, BTreeSet<Segments>>) -> Vec<String> {
    let reach = |from: &Segments| {
        let mut seen = BTreeSet::new();
        let mut next: Vec<_> = imports.get(from).into_iter().flatten().collect();
        while let Some(module) = next.pop() {
            if seen.insert(module.clone()) {
                next.extend(imports.get(module).into_iter().flatten());
            }
        }
        seen
    };
    let reached: BTreeMap<_, _> = imports.keys().map(|module| (module, reach(module))).collect();
    let mut found = BTreeSet::new();
    for (module, seen) in &reached {
        if seen.contains(*module) {
            let ring = seen
                .iter()
                .filter(|other| reached.get(other).is_some_and(|seen| seen.contains(*module)));
            found.insert(ring.map(|module| module.join("::")).collect::<Vec<_>>().join(" <-> "));
        }
    }
    found.into_iter().collect()
}

#[test]
fn no_two_files_import_each_other() {
    let mut found = Vec::new();
    let mut read = 0;
    for crate_ in CRATES {
        let path = Path::new("crates").join(crate_);
        let imports = Modules::of(&path).imports();
        read += imports.values().map(BTreeSet::len).sum::<usize>();
        found.extend(circles(&imports).into_iter().map(|circle| format!("{crate_}: {circle}")));
    }
    assert!(read > 10, "the rule looks at nothing");
    assert_none("files that import each other", &found);
}

#[test]
fn circles_are_found() {
    let module = |name: &str| vec![name.to_owned()];
    let imports = [("a", vec!["b"]), ("b", vec!["c"]), ("c", vec!["b"]), ("d", vec![])];
    let imports = imports
        .into_iter()
        .map(|(from, to)| (module(from), to.into_iter().map(module).collect()))
        .collect();
    assert_eq!(circles(&imports), ["b <-> c"]);
}

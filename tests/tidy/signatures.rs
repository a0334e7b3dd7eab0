//! Every type of a public signature has a name that a caller of the facade can write.

use std::collections::{BTreeMap, BTreeSet};

use syn::visit::{self, Visit};
use syn::{Attribute, ImplItem, Item, ItemImpl, Type, UseTree, Visibility};

use super::repository::{assert_none, files, text};

/// The facade, and the crates whose types stand in the facade's signatures.
const CRATES: [&str; 4] = ["microvm_runtime", "jail_cgroup", "jail_cmd", "jail_fs"];

/// A type: its crate and its name.
type TypeName = (String, String);

/// The public types of all crates, each with the types of its public fields and methods.
#[derive(Default)]
struct Signatures {
    declared: BTreeSet<TypeName>,
    types: BTreeMap<TypeName, BTreeSet<TypeName>>,
    exports: BTreeMap<String, BTreeSet<TypeName>>,
}

impl Signatures {
    fn read() -> Self {
        let mut signatures = Self::default();
        for name in CRATES {
            let source = format!("crates/{}/src", name.replace('_', "-"));
            for path in files(&source, "rs") {
                let file = syn::parse_file(&text(&path)).unwrap();
                let mut imports = Imports { crate_: name, found: BTreeMap::new() };
                file.items.iter().for_each(|item| imports.add(item));
                if path.ends_with("lib.rs") {
                    let exports = file.items.iter().filter_map(exported).collect::<Vec<_>>();
                    let mut found = Imports { crate_: name, found: BTreeMap::new() };
                    exports.into_iter().for_each(|tree| found.walk(tree, None));
                    let exported = found.found.into_iter().map(|(name, from)| (from, name));
                    signatures.exports.insert(name.to_owned(), exported.collect());
                }
                file.items.iter().for_each(|item| signatures.add(item, &imports));
            }
        }
        signatures
    }

    fn add(&mut self, item: &Item, imports: &Imports<'_>) {
        let mut used = Used { imports, found: BTreeSet::new() };
        let mut declares = true;
        let name = match item {
            Item::Struct(item) if is_public(&item.vis) => {
                let public = item.fields.iter().filter(|field| is_public(&field.vis));
                public.for_each(|field| used.visit_type(&field.ty));
                item.ident.to_string()
            }
            Item::Enum(item) if is_public(&item.vis) => {
                let fields = item.variants.iter().flat_map(|variant| &variant.fields);
                fields.for_each(|field| used.visit_type(&field.ty));
                item.ident.to_string()
            }
            Item::Type(item) if is_public(&item.vis) => {
                used.visit_type(&item.ty);
                item.ident.to_string()
            }
            // The functions of a crate have a name of their own.
            Item::Fn(item) if is_public(&item.vis) => {
                used.visit_signature(&item.sig);
                item.sig.ident.to_string()
            }
            Item::Impl(item) => match methods(item, &mut used) {
                Some(name) => {
                    declares = false;
                    name
                }
                None => return,
            },
            _ => return,
        };
        let name = (imports.crate_.to_owned(), name);
        if declares {
            self.declared.insert(name.clone());
        }
        self.types.entry(name).or_default().extend(used.found);
    }

    /// Returns the types that a caller of the facade reaches, starting from the facade's exports.
    fn reachable(&self) -> BTreeSet<TypeName> {
        let mut reached = BTreeSet::new();
        let mut next: Vec<_> = self.exports["microvm_runtime"].iter().collect();
        while let Some(name) = next.pop() {
            if self.declared.contains(name) && reached.insert(name.clone()) {
                next.extend(&self.types[name]);
            }
        }
        reached
    }

    /// A type has a name at the facade's root, or in a crate that the facade exports as a whole.
    fn has_name(&self, (crate_, name): &TypeName) -> bool {
        let facade = &self.exports["microvm_runtime"];
        let whole = facade.contains(&(crate_.clone(), crate_.clone()));
        let exported = |from: &BTreeSet<_>| from.contains(&(crate_.clone(), name.clone()));
        exported(facade) || whole && exported(&self.exports[crate_])
    }
}

/// Adds the types of the public methods and of the associated types; returns the type's name.
fn methods(item: &ItemImpl, used: &mut Used<'_, '_>) -> Option<String> {
    let Type::Path(of) = &*item.self_ty else { return None };
    for inner in &item.items {
        match inner {
            ImplItem::Fn(method) if is_public(&method.vis) => used.visit_signature(&method.sig),
            ImplItem::Const(item) if is_public(&item.vis) => used.visit_type(&item.ty),
            ImplItem::Type(item) => used.visit_type(&item.ty),
            _ => {}
        }
    }
    Some(of.path.segments.last()?.ident.to_string())
}

fn exported(item: &Item) -> Option<&UseTree> {
    match item {
        Item::Use(item) if is_public(&item.vis) => Some(&item.tree),
        _ => None,
    }
}

fn is_public(vis: &Visibility) -> bool {
    matches!(vis, Visibility::Public(_))
}

fn is_test(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| attribute.path().is_ident("cfg"))
}

/// The imported names of a file, each with its crate.
struct Imports<'a> {
    crate_: &'a str,
    found: BTreeMap<String, String>,
}

impl Imports<'_> {
    fn add(&mut self, item: &Item) {
        if let Item::Use(item) = item
            && !is_test(&item.attrs)
        {
            self.walk(&item.tree, None);
        }
    }

    fn walk(&mut self, tree: &UseTree, from: Option<&str>) {
        match tree {
            UseTree::Path(path) => {
                let first = path.ident.to_string();
                self.walk(&path.tree, Some(from.unwrap_or(&first)));
            }
            UseTree::Group(group) => group.items.iter().for_each(|tree| self.walk(tree, from)),
            UseTree::Name(name) if name.ident == "self" => {
                self.insert(from.unwrap_or_default().to_owned(), from);
            }
            UseTree::Name(name) => self.insert(name.ident.to_string(), from),
            UseTree::Rename(name) => self.insert(name.rename.to_string(), from),
            UseTree::Glob(_) => {}
        }
    }

    fn insert(&mut self, name: String, from: Option<&str>) {
        let ours = CRATES.iter().find(|crate_| **crate_ == from.unwrap_or(&name));
        self.found.insert(name, (*ours.unwrap_or(&self.crate_)).to_owned());
    }
}

/// The types that a signature names.
struct Used<'i, 'a> {
    imports: &'i Imports<'a>,
    found: BTreeSet<TypeName>,
}

impl<'ast> Visit<'ast> for Used<'_, '_> {
    fn visit_path(&mut self, path: &'ast syn::Path) {
        let first = path.segments.first().unwrap().ident.to_string();
        let name = path.segments.last().unwrap().ident.to_string();
        let crate_ = match CRATES.iter().find(|crate_| **crate_ == first) {
            Some(crate_) => (*crate_).to_owned(),
            None => {
                self.imports.found.get(&name).map_or(self.imports.crate_, String::as_str).to_owned()
            }
        };
        self.found.insert((crate_, name));
        visit::visit_path(self, path);
    }
}

#[test]
fn every_reachable_type_has_a_name() {
    let signatures = Signatures::read();
    let reachable = signatures.reachable();
    assert!(reachable.len() > 60, "only {} types were found", reachable.len());
    for name in ["MemoryEvents", "Throttling", "IoStats", "Pressure"] {
        assert!(reachable.contains(&("jail_cgroup".to_owned(), name.to_owned())), "{name}");
    }
    let nameless = reachable.into_iter().filter(|name| !signatures.has_name(name));
    let nameless: Vec<_> = nameless.map(|(crate_, name)| format!("{crate_}::{name}")).collect();
    assert_none("types that a caller cannot name", &nameless);
}

//! The public verbs of the facade are all in the matrix of `tests/hostile`.

use std::collections::BTreeSet;

use syn::{ImplItem, Item, Type, Visibility};

use super::repository::{assert_none, files, text};

/// The types with verbs as methods.
const TYPES: [&str; 7] =
    ["Jailer", "Vm", "Api", "Prepared", "Plan", "StreamReader", "VsockListener"];

/// Returns `Type::method` for each public method of these types.
fn methods() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for path in files("crates/microvm-runtime/src", "rs") {
        for item in syn::parse_file(&text(&path)).unwrap().items {
            let Item::Impl(block) = item else { continue };
            let Type::Path(of) = *block.self_ty else { continue };
            let name = of.path.segments.last().unwrap().ident.to_string();
            if block.trait_.is_some() || !TYPES.contains(&name.as_str()) {
                continue;
            }
            for item in block.items {
                if let ImplItem::Fn(method) = item
                    && matches!(method.vis, Visibility::Public(_))
                {
                    found.insert(format!("{name}::{}", method.sig.ident));
                }
            }
        }
    }
    found
}

#[test]
fn every_public_verb_is_in_the_hostile_matrix() {
    let matrix = text("tests/hostile/verbs.rs");
    let methods = methods();
    assert!(methods.len() > 30, "only {} were found: the rule looks at nothing", methods.len());
    let missing: Vec<_> =
        methods.into_iter().filter(|name| !matrix.contains(&format!("\"{name}\""))).collect();
    assert_none("public methods that no hostile VMM meets", &missing);
}

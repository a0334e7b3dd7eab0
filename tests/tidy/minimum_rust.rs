//! The published crates build with the minimum Rust version. Clippy finds newer functions by `rust-version`; newer syntax
//! is found here.

use syn::visit::{self, Visit};
use syn::{BinOp, Expr, ExprBinary};

use super::repository::{assert_none, files, text};

/// Counts let chains (`if let … && let …`), which need Rust 1.88.
#[derive(Default)]
struct LetChains(usize);

impl Visit<'_> for LetChains {
    fn visit_expr_binary(&mut self, binary: &ExprBinary) {
        let parts = [&binary.left, &binary.right];
        if matches!(binary.op, BinOp::And(_))
            && parts.iter().any(|part| matches!(***part, Expr::Let(_)))
        {
            self.0 += 1;
        }
        visit::visit_expr_binary(self, binary);
    }
}

fn let_chains(source: &str) -> usize {
    let mut found = LetChains::default();
    found.visit_file(&syn::parse_file(source).unwrap());
    found.0
}

#[test]
fn crates_have_no_let_chains() {
    let mut found = Vec::new();
    for path in files("crates", "rs") {
        let count = let_chains(&text(&path));
        found.extend((count > 0).then(|| format!("{}: {count}", path.display())));
    }
    assert_none("let chains, which Rust 1.85 does not have", &found);
}

#[test]
fn let_chains_are_found() {
    assert_eq!(let_chains("fn f() { if let Some(x) = y { if a && b {} } }"), 0);
    assert_eq!(let_chains("fn f() { if a && let Some(x) = y {} }"), 1);
    assert_eq!(let_chains("fn f() { while let Some(x) = y && x > 1 && z {} }"), 1);
}

#[test]
fn minimum_rust_has_one_number() {
    assert!(text("Cargo.toml").contains("rust-version = \"1.85\""));
    assert!(text("xtask/src/test.rs").contains("MINIMUM_RUST: &str = \"1.85\""));
    assert!(text("README.md").contains("| Rust | 1.85 "));
    assert!(text(".github/workflows/ci.yml").contains("toolchain install 1.85 "));
}

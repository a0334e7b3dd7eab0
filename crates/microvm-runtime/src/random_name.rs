//! Names that nobody can guess, and so nobody can take first.

use std::fmt::Display;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

/// Returns `prefix`, a dot and 64 random bits (`getrandom(2)`) in hexadecimal digits.
pub(crate) fn random_name(prefix: impl Display) -> String {
    format!("{prefix}.{:016x}", RandomState::new().build_hasher().finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ() {
        assert_ne!(random_name("a"), random_name("a"));
        assert!(random_name("a").starts_with("a.") && random_name("a").len() == 18);
    }
}

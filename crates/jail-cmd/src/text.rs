//! The common code of all types that hold a checked text.

/// Gives a newtype over `String` constructors and conversions; `$check` returns the text to store.
macro_rules! text_type {
    ($type:ident, $check:path) => {
        impl $type {
            /// Checks the text.
            ///
            /// # Errors
            /// The rule the text breaks, and the text.
            pub fn new(text: impl Into<String>) -> Result<Self, crate::Error> {
                $check(text.into()).map(Self)
            }

            /// The text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $type {
            type Err = crate::Error;

            fn from_str(text: &str) -> Result<Self, crate::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<&str> for $type {
            type Error = crate::Error;

            fn try_from(text: &str) -> Result<Self, crate::Error> {
                Self::new(text)
            }
        }

        impl TryFrom<String> for $type {
            type Error = crate::Error;

            fn try_from(text: String) -> Result<Self, crate::Error> {
                Self::new(text)
            }
        }

        impl From<$type> for String {
            fn from(checked: $type) -> String {
                checked.0
            }
        }

        impl AsRef<str> for $type {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

pub(crate) use text_type;

//! The texts of enums that stand in a configuration.

/// Implements `Display` and `FromStr` for an enum: each variant has one text, the same as in JSON.
macro_rules! text_form {
    ($type:ident, $noun:literal, { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $text),+ })
            }
        }

        impl std::str::FromStr for $type {
            type Err = $crate::VmRuntimeError;

            /// Parses the text that `Display` prints.
            fn from_str(text: &str) -> std::result::Result<Self, Self::Err> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err($crate::text_form::refused($noun, text, &[$($text),+]).into()),
                }
            }
        }

        #[cfg(test)]
        impl $type {
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];
        }
    };
}

pub(crate) use text_form;

use crate::error::Error;

pub(crate) fn refused(noun: &str, text: &str, known: &[&str]) -> Error {
    Error::invalid(format!("parse the {noun} {text:?}"), "there is no such value")
        .hinted(format!("Use one of {}.", known.join(", ")))
}

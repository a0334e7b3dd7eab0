//! The user and the group Firecracker runs as: [`Uid`] and [`Gid`].

use std::fmt;
use std::str::FromStr;

use crate::{Error, ErrorKind};

/// Defines an id that is not root's unless that is said, and not the one that means "unchanged" to
/// `setuid(2)`.
macro_rules! user_type {
    ($(#[$doc:meta])* $type:ident, $kind:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        #[cfg_attr(feature = "serde", serde(try_from = "Repr", into = "Repr"))]
        pub struct $type(u32);

        impl $type {
            /// Checks the number.
            ///
            /// # Errors
            /// 0, which is root and means no confinement, and 4294967295, with which the jailer
            /// fails at its very end and leaves its debris behind.
            pub fn new(number: u32) -> Result<Self, Error> {
                match fault(number) {
                    None => Ok(Self(number)),
                    Some(reason) => Err(Error::new($kind, number.to_string(), reason)),
                }
            }

            /// Root, on purpose.
            ///
            /// # Caveats
            /// A VMM that runs as root is confined by namespaces and its seccomp filter alone.
            #[must_use]
            pub fn root() -> Self {
                Self(0)
            }

            /// The number.
            #[must_use]
            pub fn get(self) -> u32 {
                self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(text: &str) -> Result<Self, Error> {
                let number = text.parse().map_err(|_| "it is not a 32-bit number");
                number
                    .and_then(|number| fault(number).map_or(Ok(Self(number)), Err))
                    .map_err(|reason| Error::new($kind, text, reason))
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        #[cfg(feature = "serde")]
        impl TryFrom<Repr> for $type {
            type Error = Error;

            fn try_from(repr: Repr) -> Result<Self, Error> {
                match repr {
                    Repr::Number(number) => Self::new(number),
                    Repr::Name(Name::Root) => Ok(Self::root()),
                }
            }
        }

        #[cfg(feature = "serde")]
        impl From<$type> for Repr {
            fn from(id: $type) -> Self {
                match id.0 {
                    0 => Self::Name(Name::Root),
                    number => Self::Number(number),
                }
            }
        }
    };
}

user_type! {
    /// The user id Firecracker runs as, 1 to 4294967294. Serialised, root is the word `"root"`.
    Uid, ErrorKind::Uid
}

user_type! {
    /// The group id Firecracker runs as, 1 to 4294967294. Serialised, root is the word `"root"`.
    Gid, ErrorKind::Gid
}

/// Returns the reason why the number is refused.
fn fault(number: u32) -> Option<&'static str> {
    match number {
        0 => Some("it is root, and root can leave a jail"),
        u32::MAX => Some("it means \"unchanged\" to the kernel"),
        _ => None,
    }
}

/// The serialised form: root must be named explicitly there too.
#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
enum Repr {
    Number(u32),
    Name(Name),
}

#[cfg(feature = "serde")]
#[derive(serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
enum Name {
    Root,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_and_unchanged_are_refused() {
        for number in [0, u32::MAX] {
            let (uid, gid) = (Uid::new(number).unwrap_err(), Gid::new(number).unwrap_err());
            assert_eq!((uid.kind(), gid.kind()), (ErrorKind::Uid, ErrorKind::Gid));
            assert_eq!(
                (uid.value(), gid.value()),
                (number.to_string().as_str(), number.to_string().as_str())
            );
        }
        for number in [1, 123, 65534, u32::MAX - 1] {
            assert_eq!(Uid::new(number).unwrap().get(), number);
            assert_eq!(Gid::new(number).unwrap().get(), number);
        }
        assert_eq!((Uid::root().get(), Gid::root().get()), (0, 0));
    }

    #[test]
    fn text_is_a_32_bit_number() {
        assert_eq!("123".parse::<Uid>().unwrap().get(), 123);
        for text in ["", "x", "-1", "4294967296", "1 ", "0x1", "0", "00", "+0", "04294967295"] {
            assert_eq!(text.parse::<Uid>().unwrap_err().value(), text);
            assert_eq!(text.parse::<Gid>().unwrap_err().kind(), ErrorKind::Gid);
        }
    }
}

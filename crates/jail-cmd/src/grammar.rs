//! The grammar that the jailer and Firecracker share, written from the behaviour of the official
//! binaries and not from the builder.
//!
//! An argument is one item, or two items if the argument takes a value; a value does not begin with
//! `--`.

use std::ffi::OsString;

use crate::{Error, ErrorKind};

/// An argument of a program, by name without `--`.
#[derive(Debug)]
pub(crate) struct Argument {
    name: &'static str,
    takes: Takes,
    required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Takes {
    Nothing,
    Value,
    /// A value, each time the argument is given.
    Values,
}

impl Argument {
    pub(crate) const fn switch(name: &'static str) -> Self {
        Self { name, takes: Takes::Nothing, required: false }
    }

    pub(crate) const fn value(name: &'static str) -> Self {
        Self { name, takes: Takes::Value, required: false }
    }

    pub(crate) const fn values(name: &'static str) -> Self {
        Self { name, takes: Takes::Values, required: false }
    }

    pub(crate) const fn required(name: &'static str) -> Self {
        Self { name, takes: Takes::Value, required: true }
    }
}

/// The given arguments, in the given order.
#[derive(Debug, Default)]
pub(crate) struct Given(Vec<(&'static str, String)>);

impl Given {
    /// Returns true if the argument was given.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|(given, _)| *given == name)
    }

    /// Every value of the argument.
    pub(crate) fn values(&self, name: &str) -> Vec<String> {
        self.0.iter().filter(|(given, _)| *given == name).map(|(_, value)| value.clone()).collect()
    }

    /// The value of the argument.
    pub(crate) fn value(&self, name: &str) -> Option<String> {
        self.0.iter().find(|(given, _)| *given == name).map(|(_, value)| value.clone())
    }

    /// The value of a required argument; it was there when this was read.
    pub(crate) fn required(&self, name: &str) -> String {
        self.value(name).unwrap_or_default()
    }
}

/// Reads the items as UTF-8.
pub(crate) fn utf8(argv: &[OsString]) -> Result<Vec<&str>, Error> {
    argv.iter()
        .map(|item| {
            item.to_str().ok_or_else(|| {
                Error::new(ErrorKind::NotUtf8, item.to_string_lossy(), "it is not UTF-8")
            })
        })
        .collect()
}

/// Reads the items as these arguments. The first fault from the left is reported, then what is
/// missing, by name.
pub(crate) fn read(items: &[&str], known: &'static [Argument]) -> Result<Given, Error> {
    let mut given = Given::default();
    let mut items = items.iter();
    while let Some(item) = items.next() {
        let argument = find(item, known)?;
        if argument.takes != Takes::Values && given.has(argument.name) {
            return Err(Error::new(
                ErrorKind::DuplicateArgument,
                argument.name,
                "it was given before",
            ));
        }
        let value = match argument.takes {
            Takes::Nothing => "",
            Takes::Value | Takes::Values => {
                items.next().filter(|value| !value.starts_with("--")).ok_or_else(|| {
                    Error::new(ErrorKind::MissingValue, argument.name, "no value follows")
                })?
            }
        };
        given.0.push((argument.name, value.to_owned()));
    }
    let mut missing: Vec<_> = known
        .iter()
        .filter(|argument| argument.required && !given.has(argument.name))
        .map(|it| it.name)
        .collect();
    missing.sort_unstable();
    match missing.first() {
        Some(name) => Err(Error::new(ErrorKind::MissingArgument, *name, "it is required")),
        None => Ok(given),
    }
}

fn find(item: &str, known: &'static [Argument]) -> Result<&'static Argument, Error> {
    let name = item.strip_prefix("--");
    known.iter().find(|argument| name == Some(argument.name)).ok_or_else(|| {
        Error::new(ErrorKind::UnexpectedArgument, name.unwrap_or(item), "there is no such argument")
    })
}

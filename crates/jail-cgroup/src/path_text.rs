//! Paths in serialised form: text if they are UTF-8, else their bytes.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// A path as serde has it: a string, or an array of bytes.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
#[serde(untagged)]
pub(crate) enum PathText {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<PathBuf> for PathText {
    fn from(path: PathBuf) -> Self {
        match path.into_os_string().into_string() {
            Ok(text) => Self::Text(text),
            Err(bytes) => Self::Bytes(bytes.into_vec()),
        }
    }
}

impl From<PathText> for PathBuf {
    fn from(path: PathText) -> Self {
        match path {
            PathText::Text(text) => text.into(),
            PathText::Bytes(bytes) => OsString::from_vec(bytes).into(),
        }
    }
}

/// For `#[serde(with = "…")]` on a `PathBuf`.
pub(crate) fn serialize<S: serde::Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
    serde::Serialize::serialize(&PathText::from(path.to_owned()), to)
}

/// For `#[serde(with = "…")]` on a `PathBuf`.
pub(crate) fn deserialize<'de, D: serde::Deserializer<'de>>(from: D) -> Result<PathBuf, D::Error> {
    <PathText as serde::Deserialize>::deserialize(from).map(PathBuf::from)
}

/// For `#[serde(serialize_with = "…")]` on a list of paths.
pub(crate) fn serialize_all<S: serde::Serializer>(
    paths: &[PathBuf],
    to: S,
) -> Result<S::Ok, S::Error> {
    to.collect_seq(paths.iter().cloned().map(PathText::from))
}

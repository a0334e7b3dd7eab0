//! Paths the jailer and Firecracker can be given: [`HostPath`] and [`JailPath`].

use std::path::{Path, PathBuf};

use crate::text::text_type;
use crate::{Error, ErrorKind, name};

/// Longest path, in bytes (`PATH_MAX` counts the NUL).
const MAX_BYTES: usize = 4095;

/// Gives a path type the conversions from and to paths.
macro_rules! path_type {
    ($type:ident, $kind:expr) => {
        impl $type {
            /// The path.
            #[must_use]
            pub fn as_path(&self) -> &Path {
                Path::new(&self.0)
            }

            /// Returns the last name of the path; `None` for `/`.
            #[must_use]
            pub fn file_name(&self) -> Option<&str> {
                self.0.rsplit('/').next().filter(|name| !name.is_empty())
            }
        }

        impl TryFrom<&Path> for $type {
            type Error = Error;

            fn try_from(path: &Path) -> Result<Self, Error> {
                Self::new(utf8($kind, path)?)
            }
        }

        impl TryFrom<PathBuf> for $type {
            type Error = Error;

            fn try_from(path: PathBuf) -> Result<Self, Error> {
                Self::try_from(path.as_path())
            }
        }

        impl AsRef<Path> for $type {
            fn as_ref(&self) -> &Path {
                self.as_path()
            }
        }
    };
}

/// An absolute path on the host that the jailer's argument reader can carry.
///
/// UTF-8, without `..` and control characters (NUL among them). Kept in one form: `//` and `/.` are
/// folded and a trailing `/` is dropped, so that equal paths are equal texts. Whether it exists is
/// not asked.
///
/// ```
/// use jail_cmd::HostPath;
///
/// assert_eq!(HostPath::new("/srv//jailer/")?.as_str(), "/srv/jailer");
/// assert!(HostPath::new("/srv/../etc").unwrap_err().reason().contains("`..`"));
/// # Ok::<(), jail_cmd::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct HostPath(String);

text_type!(HostPath, check_host);
path_type!(HostPath, ErrorKind::HostPath);

/// An absolute path inside the jail, such as `/api.sock`, under the rules of [`HostPath`].
///
/// [`Layout::on_host`](crate::Layout::on_host) says where that is on the host.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct JailPath(String);

text_type!(JailPath, check_jail);
path_type!(JailPath, ErrorKind::JailPath);

impl JailPath {
    /// The path of a name in the jail's root.
    pub(crate) fn in_root(name: &str) -> Self {
        Self(format!("/{name}"))
    }
}

fn utf8(kind: ErrorKind, path: &Path) -> Result<&str, Error> {
    path.to_str().ok_or_else(|| Error::new(kind, path.to_string_lossy(), "it is not UTF-8"))
}

fn check_host(path: String) -> Result<String, Error> {
    check(ErrorKind::HostPath, &path)
}

fn check_jail(path: String) -> Result<String, Error> {
    check(ErrorKind::JailPath, &path)
}

fn check(kind: ErrorKind, path: &str) -> Result<String, Error> {
    let refused = |reason: String| Err(Error::new(kind, path, reason));
    if !path.starts_with('/') {
        return refused("it is not absolute".into());
    }
    if path.len() > MAX_BYTES {
        return refused(format!("it has {} bytes", path.len()));
    }
    let mut folded = String::with_capacity(path.len());
    for part in path.split('/') {
        match part {
            "" | "." => continue,
            ".." => return refused("it contains `..`".into()),
            _ => {}
        }
        if let Some(fault) = name::fault(part) {
            return refused(format!("in {part:?}, {fault}"));
        }
        folded.push('/');
        folded.push_str(part);
    }
    if folded.is_empty() {
        folded.push('/');
    }
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    use super::*;

    #[test]
    fn one_form() {
        for (given, kept) in [
            ("/", "/"),
            ("///", "/"),
            ("/.", "/"),
            ("/srv/jailer", "/srv/jailer"),
            ("/srv//jailer/./x/", "/srv/jailer/x"),
            ("/a b/é/-h/--", "/a b/é/-h/--"),
        ] {
            assert_eq!(HostPath::new(given).unwrap().as_str(), kept);
            assert_eq!(JailPath::new(given).unwrap().as_str(), kept);
        }
    }

    #[test]
    fn bad_paths_are_named() {
        let long = format!("/{}", "a/".repeat(2048));
        let long_name = format!("/{}", "a".repeat(256));
        for path in
            ["", "a", "./a", "-h", "--", "/..", "/a/../b", "/a\0b", "/a\nb", &long, &long_name]
        {
            let error = HostPath::new(path).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::HostPath, path), "{error}");
            assert_eq!(JailPath::new(path).unwrap_err().kind(), ErrorKind::JailPath);
        }
        let bytes = Path::new(OsStr::from_bytes(b"/srv/\xff"));
        assert_eq!(HostPath::try_from(bytes).unwrap_err().reason(), "it is not UTF-8");
    }

    #[test]
    fn file_name_is_the_last() {
        assert_eq!(HostPath::new("/").unwrap().file_name(), None);
        assert_eq!(
            HostPath::new("/usr/bin/firecracker/").unwrap().file_name(),
            Some("firecracker")
        );
    }
}

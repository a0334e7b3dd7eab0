//! The name of a file that is staged into a jail: [`ArtifactName`].

use crate::{Error, ErrorKind, ExecName, in_jail, name};

/// The name of a staged file in the jail's root: one name that does not already mean something
/// there.
///
/// The exec file's name, the name of its pid file and the names in [`in_jail`] are refused. Two
/// artifacts with one name are for the caller to refuse.
///
/// ```
/// use jail_cmd::{ArtifactName, ExecName};
///
/// let exec = ExecName::new("firecracker")?;
/// assert_eq!(ArtifactName::new("rootfs.ext4", &exec)?.as_str(), "rootfs.ext4");
/// for name in ["firecracker", "firecracker.pid", "vmlinux", "dev", "../etc"] {
///     assert!(ArtifactName::new(name, &exec).unwrap_err().to_string().contains(name));
/// }
/// assert_eq!(ArtifactName::for_boot("vmlinux")?.as_str(), "vmlinux");
/// # Ok::<(), jail_cmd::Error>(())
/// ```
///
/// Deserialised, a boot file's name is accepted too, and the exec file's cannot be known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct ArtifactName(String);

impl ArtifactName {
    /// The name of a drive, in the jail of this exec file.
    ///
    /// # Errors
    /// A text that is not one name, and a name with another meaning in a jail.
    pub fn new(name: impl Into<String>, exec_name: &ExecName) -> Result<Self, Error> {
        let name = name.into();
        let reason = if name == exec_name.as_str() || name == exec_name.pid_file() {
            "the jailer makes a file of this name"
        } else if in_jail::BOOT_FILES.contains(&name.as_str()) {
            "it is a boot file's name"
        } else {
            return Self::free(name);
        };
        Err(Error::new(ErrorKind::ArtifactName, name, reason))
    }

    /// The name of a file the guest boots from, one of [`in_jail::BOOT_FILES`].
    ///
    /// # Errors
    /// Any other name.
    pub fn for_boot(name: impl Into<String>) -> Result<Self, Error> {
        let name = name.into();
        match in_jail::BOOT_FILES.contains(&name.as_str()) {
            true => Ok(Self(name)),
            false => Err(Error::new(ErrorKind::ArtifactName, name, "it is no boot file's name")),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    fn free(name: String) -> Result<Self, Error> {
        let reason = match name::fault(&name) {
            Some(fault) => fault,
            None if in_jail::is_reserved(&name) => "it means something else in a jail".into(),
            None => return Ok(Self(name)),
        };
        Err(Error::new(ErrorKind::ArtifactName, name, reason))
    }
}

#[cfg(feature = "serde")]
impl TryFrom<String> for ArtifactName {
    type Error = Error;

    fn try_from(name: String) -> Result<Self, Error> {
        match in_jail::BOOT_FILES.contains(&name.as_str()) {
            true => Self::for_boot(name),
            false => Self::free(name),
        }
    }
}

impl From<ArtifactName> for String {
    fn from(name: ArtifactName) -> Self {
        name.0
    }
}

impl AsRef<str> for ArtifactName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for ArtifactName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_refused() {
        let exec = ExecName::new("firecracker-v1.16.1").unwrap();
        for name in [
            "rootfs.ext4",
            "data",
            "-h",
            "--",
            "firecracker",
            "dev.img",
            "v.socket",
            "é",
            &"a".repeat(255),
        ] {
            assert_eq!(ArtifactName::new(name, &exec).unwrap().as_str(), name);
        }
        for name in [
            "firecracker-v1.16.1",
            "firecracker-v1.16.1.pid",
            "vmlinux",
            "initrd",
            "api.sock",
            "vm.json",
            "dev",
            "run",
            "old_root",
            "sys",
            "firecracker.log",
            "metrics",
            "v.sock",
            "v.sock_52",
            "",
            ".",
            "..",
            "a/b",
            "/a",
            "a\0b",
            "a\nb",
            &"a".repeat(256),
        ] {
            let error = ArtifactName::new(name, &exec).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::ArtifactName, name), "{error}");
        }
    }

    #[test]
    fn boot_files_are_the_two() {
        assert_eq!(ArtifactName::for_boot("initrd").unwrap().to_string(), "initrd");
        assert!(ArtifactName::for_boot("rootfs.ext4").is_err());
        assert!(ArtifactName::for_boot("../vmlinux").is_err());
    }
}

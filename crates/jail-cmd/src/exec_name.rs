//! The file name of the executable a jail is named after: [`ExecName`].

use crate::text::text_type;
use crate::{Error, ErrorKind, HostPath, in_jail, name};

/// The suffix that the jailer appends to the exec file's name to name the pid file.
pub(crate) const PID_SUFFIX: &str = ".pid";

/// The file name of the canonical exec file: the jailer names the directory above its jails, the
/// copy in the jail and the pid file after it.
///
/// One name that leaves room for `.pid`, begins with no dot (such names in the base are the
/// launcher's own) and means nothing else in a jail.
///
/// ```
/// use jail_cmd::{ExecName, HostPath};
///
/// let canonical = HostPath::new("/opt/firecracker/firecracker-v1.16.1")?;
/// assert_eq!(ExecName::try_from(&canonical)?.as_str(), "firecracker-v1.16.1");
/// # Ok::<(), jail_cmd::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "String", into = "String"))]
pub struct ExecName(String);

text_type!(ExecName, check);

impl ExecName {
    /// The name of the pid file in the jail.
    #[must_use]
    pub fn pid_file(&self) -> String {
        format!("{}{PID_SUFFIX}", self.0)
    }
}

impl TryFrom<&HostPath> for ExecName {
    type Error = Error;

    /// The name of a canonical path: of a symbolic link, the jailer takes the target's name.
    fn try_from(exec_file: &HostPath) -> Result<Self, Error> {
        match exec_file.file_name() {
            Some(name) => Self::new(name),
            None => Err(Error::new(ErrorKind::ExecName, exec_file.as_str(), "it has no name")),
        }
    }
}

fn check(exec: String) -> Result<String, Error> {
    let reason = match name::fault(&exec) {
        Some(fault) => fault,
        None if exec.len() + PID_SUFFIX.len() > name::MAX_BYTES => {
            format!("it has {} bytes", exec.len())
        }
        None if exec.starts_with('.') => "it begins with a dot".into(),
        None if in_jail::is_reserved(&exec) => "it means something else in a jail".into(),
        None => return Ok(exec),
    };
    Err(Error::new(ErrorKind::ExecName, exec, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exec_name_is_one_component() {
        for name in ["firecracker", "firecracker-v1.16.1", "-h", "stub", "é", &"a".repeat(251)] {
            assert_eq!(ExecName::new(name).unwrap().as_str(), name);
        }
        for name in [
            "",
            ".",
            "..",
            ".uids",
            "a/b",
            "a\0",
            "a\n",
            "dev",
            "old_root",
            "api.sock",
            "v.sock_1",
            &"a".repeat(252),
        ] {
            let error = ExecName::new(name).unwrap_err();
            assert_eq!((error.kind(), error.value()), (ErrorKind::ExecName, name));
        }
        assert_eq!(
            ExecName::try_from(&HostPath::new("/").unwrap()).unwrap_err().reason(),
            "it has no name"
        );
    }
}

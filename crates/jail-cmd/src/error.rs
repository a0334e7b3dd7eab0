//! The one error of this crate.

use std::borrow::Cow;
use std::fmt;

/// Characters of a refused value that a message shows.
const SHOWN: usize = 120;

/// A value that was refused, and why.
///
/// Printed, it names the value (escaped) and what would be right, as a fragment that fits after
/// "failed to":
///
/// ```
/// let error = jail_cmd::JailId::new("a_b").unwrap_err();
/// assert_eq!(error.kind(), jail_cmd::ErrorKind::Id);
/// assert_eq!(error.value(), "a_b");
/// assert_eq!(
///     error.to_string(),
///     "accept the jail id \"a_b\": '_' at byte 1 is not allowed; a jail id is 1 to 64 ASCII letters, digits and \
///      hyphens, a letter or digit first",
/// );
/// ```
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {}: {reason}; {}", kind.operation(), Shown(value), kind.hint())]
pub struct Error {
    kind: ErrorKind,
    value: String,
    reason: Cow<'static, str>,
}

impl Error {
    pub(crate) fn new(
        kind: ErrorKind,
        value: impl Into<String>,
        reason: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { kind, value: value.into(), reason: reason.into() }
    }

    /// The kind of value that was refused, to match on.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The refused value, or the name of the refused argument without `--`.
    ///
    /// Bytes that are not UTF-8 appear as replacement characters.
    #[must_use]
    pub fn value(&self) -> &str {
        &self.value
    }

    /// The reason why the value was refused.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// A description of the values that are accepted.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.kind.hint()
    }
}

/// The kind of value that was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A jail id.
    Id,
    /// A user id.
    Uid,
    /// A group id.
    Gid,
    /// A path on the host.
    HostPath,
    /// A path in the jail.
    JailPath,
    /// The file name of the executable.
    ExecName,
    /// The name of a file staged into the jail.
    ArtifactName,
    /// A control group file with a value.
    CgroupSetting,
    /// A version of control groups.
    CgroupVersion,
    /// The control group above the jail's own.
    ParentCgroup,
    /// A resource limit.
    ResourceLimit,
    /// A log level of Firecracker's.
    LogLevel,
    /// A log module of Firecracker's.
    LogModule,
    /// A size in bytes.
    Size,
    /// The version of a release.
    Version,
    /// An argument that is right, but not known to this release.
    UnsupportedByRelease,
    /// Arguments that exclude, or need, each other.
    Combination,
    /// Grammar: an item that is not UTF-8. The official programs abort.
    NotUtf8,
    /// Grammar: an item that is no argument.
    UnexpectedArgument,
    /// Grammar: an argument given twice.
    DuplicateArgument,
    /// Grammar: a required argument that is not there.
    MissingArgument,
    /// Grammar: an argument without its value.
    MissingValue,
    /// An argument that Firecracker has and this crate does not express, such as `--no-seccomp`.
    ForbiddenArgument,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Id => "id",
            Self::Uid => "uid",
            Self::Gid => "gid",
            Self::HostPath => "host path",
            Self::JailPath => "jail path",
            Self::ExecName => "exec name",
            Self::ArtifactName => "artifact name",
            Self::CgroupSetting => "cgroup setting",
            Self::CgroupVersion => "cgroup version",
            Self::ParentCgroup => "parent cgroup",
            Self::ResourceLimit => "resource limit",
            Self::LogLevel => "log level",
            Self::LogModule => "log module",
            Self::Size => "size",
            Self::Version => "version",
            Self::UnsupportedByRelease => "unsupported by release",
            Self::Combination => "combination",
            Self::NotUtf8 => "not utf8",
            Self::UnexpectedArgument => "unexpected argument",
            Self::DuplicateArgument => "duplicate argument",
            Self::MissingArgument => "missing argument",
            Self::MissingValue => "missing value",
            Self::ForbiddenArgument => "forbidden argument",
        })
    }
}

impl ErrorKind {
    /// Returns true if the official grammar refuses the command line, regardless of the values.
    ///
    /// The official programs accept some values of the other kinds that this crate's types refuse:
    /// uid 0 and the id `é`, for example.
    #[must_use]
    pub fn is_grammar(self) -> bool {
        matches!(
            self,
            Self::NotUtf8
                | Self::UnexpectedArgument
                | Self::DuplicateArgument
                | Self::MissingArgument
                | Self::MissingValue
        )
    }

    fn operation(self) -> &'static str {
        match self {
            Self::Id => "accept the jail id",
            Self::Uid => "accept the uid",
            Self::Gid => "accept the gid",
            Self::HostPath => "accept the host path",
            Self::JailPath => "accept the path in the jail",
            Self::ExecName => "accept the exec file's name",
            Self::ArtifactName => "accept the artifact's name",
            Self::CgroupSetting => "accept the cgroup setting",
            Self::CgroupVersion => "accept the cgroup version",
            Self::ParentCgroup => "accept the parent cgroup",
            Self::ResourceLimit => "accept the resource limit",
            Self::LogLevel => "accept the log level",
            Self::LogModule => "accept the log module",
            Self::Size => "accept the size",
            Self::Version => "recognise the release",
            Self::UnsupportedByRelease | Self::Combination | Self::ForbiddenArgument => {
                "use the argument"
            }
            Self::NotUtf8 => "read the argument",
            Self::UnexpectedArgument
            | Self::DuplicateArgument
            | Self::MissingArgument
            | Self::MissingValue => "parse the argument",
        }
    }

    fn hint(self) -> &'static str {
        match self {
            Self::Id => {
                "a jail id is 1 to 64 ASCII letters, digits and hyphens, a letter or digit first"
            }
            Self::Uid | Self::Gid => {
                "a uid or gid is a number from 1 to 4294967294; `root()` asks for 0"
            }
            Self::HostPath | Self::JailPath => {
                "a path is absolute, UTF-8, without `..` and control characters, at most 4095 bytes, each \
                 name at most 255"
            }
            Self::ExecName => {
                "an exec file has one UTF-8 name of at most 251 bytes without control characters, no dot \
                 first, and none of those that mean something in a jail"
            }
            Self::ArtifactName => {
                "an artifact has one UTF-8 name of at most 255 bytes without control characters, and none \
                 of those that mean something in a jail"
            }
            Self::CgroupSetting => {
                "a setting is `<controller>.<file>=<value>`, such as `pids.max=64`"
            }
            Self::CgroupVersion => "the version is 1 or 2",
            Self::ParentCgroup => {
                "a parent group is relative, such as `microvm.slice`, without empty names, `.`, `..` and a \
                 hyphen first"
            }
            Self::ResourceLimit => {
                "a limit is `fsize=<bytes>` from 10 on, or `no-file=<count>` from 4 on"
            }
            Self::LogLevel => "a level is Off, Trace, Debug, Info, Warning or Error",
            Self::LogModule => {
                "a module is a path, such as `vmm::devices`, without control characters and a \
                 hyphen first"
            }
            Self::Size => "a size is a number of bytes from 0 to 18446744073709551615",
            Self::Version => "`jailer --version` prints `Jailer v<major>.<minor>.<patch>`",
            Self::UnsupportedByRelease => "install a release that has it, or leave it out",
            Self::Combination => "leave one out, or add the other",
            Self::NotUtf8 => "the official programs read UTF-8 only",
            Self::UnexpectedArgument => {
                "an argument is `--name` or `--name value`, two items, never `--name=value`"
            }
            Self::DuplicateArgument => "give it once",
            Self::MissingArgument => "give it",
            Self::MissingValue => "the next item is the value and cannot begin with `--`",
            Self::ForbiddenArgument => "leave it out",
        }
    }
}

/// A value for a message: quoted, escaped, and cut to one line.
struct Shown<'a>(&'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN) {
            None => write!(f, "{:?}", self.0),
            Some((end, _)) => write!(f, "{:?}... ({} bytes)", &self.0[..end], self.0.len()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_can_cross_threads() {
        fn assert_send_sync<T: std::error::Error + Send + Sync + 'static>() {}
        assert_send_sync::<Error>();
    }

    #[test]
    fn message_is_one_bounded_line() {
        let error = Error::new(ErrorKind::Id, "a\n\u{1b}[31m", "no");
        assert!(
            error.to_string().starts_with(r#"accept the jail id "a\n\u{1b}[31m": no; "#),
            "{error}"
        );
        let error = Error::new(ErrorKind::Id, "é".repeat(10_000), "no");
        assert!(
            error.to_string().len() < 600 && error.to_string().contains("(20000 bytes)"),
            "{error}"
        );
    }
}

//! The jailer's command line, with the grammar checked and the values unread: [`RawInvocation`].

use std::ffi::OsString;

use crate::grammar::{self, Argument};
use crate::{Error, Feature, JailerVersion};

/// Every argument of the jailer, identical from release 1.0.0 to 1.16.1.
const ARGUMENTS: &[Argument] = &[
    Argument::required("id"),
    Argument::required("exec-file"),
    Argument::required("uid"),
    Argument::required("gid"),
    Argument::value("chroot-base-dir"),
    Argument::value("netns"),
    Argument::switch("daemonize"),
    Argument::switch("new-pid-ns"),
    Argument::values("cgroup"),
    Argument::values("resource-limit"),
    Argument::value("cgroup-version"),
    Argument::value("parent-cgroup"),
    Argument::switch("version"),
];

/// The action that an argv requests from the jailer, with the values unread.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RawInvocation {
    /// Start a VMM, if the values are accepted.
    Run(Box<RawArgs>),
    /// Print the help and exit 0.
    Help,
    /// Print the version and exit 0.
    Version,
}

/// The values of the jailer's arguments, as given.
///
/// The official jailer accepts some values that this crate's types refuse: uid 0, an id `é`, an
/// empty parent. A program that imitates the jailer starts from this type;
/// [`JailerArgs::try_from`](crate::JailerArgs) applies the checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RawArgs {
    /// `--id`.
    pub id: String,
    /// `--exec-file`.
    pub exec_file: String,
    /// `--uid`.
    pub uid: String,
    /// `--gid`.
    pub gid: String,
    /// `--chroot-base-dir`, without the jailer's default.
    pub chroot_base_dir: Option<String>,
    /// `--cgroup-version`, without the jailer's default.
    pub cgroup_version: Option<String>,
    /// `--parent-cgroup`, without the jailer's default.
    pub parent_cgroup: Option<String>,
    /// Each `--cgroup`, in order.
    pub cgroups: Vec<String>,
    /// Each `--resource-limit`, in order.
    pub resource_limits: Vec<String>,
    /// `--netns`.
    pub netns: Option<String>,
    /// `--daemonize`.
    pub daemonize: bool,
    /// `--new-pid-ns`.
    pub new_pid_ns: bool,
    /// The items after the first `--`, unread.
    pub firecracker: Vec<String>,
}

impl RawInvocation {
    /// Reads an argv, without the program's own name, as this release of the jailer does.
    ///
    /// # Errors
    /// An argv that the grammar refuses. The error's kind [`is_grammar`](crate::ErrorKind::is_grammar),
    /// and the error's value is the argument's name.
    pub fn parse(argv: &[OsString], release: JailerVersion) -> Result<Self, Error> {
        let items = grammar::utf8(argv)?;
        let (items, firecracker) = match items.iter().position(|item| *item == "--") {
            Some(at) => (&items[..at], &items[at + 1..]),
            None => (&items[..], &[][..]),
        };
        let short_help = release.supports(Feature::ShortHelp);
        if items.iter().any(|item| *item == "--help" || (short_help && *item == "-h")) {
            return Ok(Self::Help);
        }
        if items.contains(&"--version") {
            return Ok(Self::Version);
        }
        let given = grammar::read(items, ARGUMENTS)?;
        Ok(Self::Run(Box::new(RawArgs {
            id: given.required("id"),
            exec_file: given.required("exec-file"),
            uid: given.required("uid"),
            gid: given.required("gid"),
            chroot_base_dir: given.value("chroot-base-dir"),
            cgroup_version: given.value("cgroup-version"),
            parent_cgroup: given.value("parent-cgroup"),
            cgroups: given.values("cgroup"),
            resource_limits: given.values("resource-limit"),
            netns: given.value("netns"),
            daemonize: given.has("daemonize"),
            new_pid_ns: given.has("new-pid-ns"),
            firecracker: firecracker.iter().map(|&item| item.to_owned()).collect(),
        })))
    }
}

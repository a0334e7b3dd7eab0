//! From an argv back to types: [`parse`].

use std::ffi::OsString;
use std::str::FromStr;

use crate::firecracker_args::Api;
use crate::grammar::{self, Argument};
use crate::{Error, ErrorKind, FirecrackerArgs, JailerArgs, JailerVersion, RawArgs, RawInvocation};

/// Every argument of Firecracker's that [`FirecrackerArgs`] can express.
const ARGUMENTS: &[Argument] = &[
    Argument::value("api-sock"),
    Argument::switch("no-api"),
    Argument::value("config-file"),
    Argument::value("metadata"),
    Argument::value("log-path"),
    Argument::value("level"),
    Argument::value("module"),
    Argument::switch("show-level"),
    Argument::switch("show-log-origin"),
    Argument::value("metrics-path"),
    Argument::value("seccomp-filter"),
    Argument::switch("boot-timer"),
    Argument::switch("enable-pci"),
    Argument::value("http-api-max-payload-size"),
    Argument::value("mmds-size-limit"),
];

/// Arguments that Firecracker accepts and no VM may be started with: they drop the seccomp filter, or
/// print something instead of starting a VM.
const FORBIDDEN: [&str; 6] =
    ["no-seccomp", "help", "-h", "version", "snapshot-version", "describe-snapshot"];

/// The arguments that the jailer itself passes to Firecracker.
const GIVEN_BY_THE_JAILER: [&str; 4] =
    ["id", "start-time-us", "start-time-cpu-us", "parent-cpu-time-us"];

/// The action that an argv requests from the jailer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Invocation {
    /// Starts a VMM.
    Run(Box<JailerArgs>),
    /// Print the help and exit 0.
    Help,
    /// Print the version and exit 0.
    Version,
}

/// Parses an argv, without the program name, as the newest jailer does, into this crate's types.
///
/// The parser is strict and independent of the builder: the returned value describes the action of
/// the official jailer.
///
/// ```
/// use jail_cmd::{ErrorKind, Invocation, parse};
///
/// let argv = "--id vm-1 --exec-file /usr/bin/firecracker --uid 123 --gid 100 -- --api-sock /api.sock";
/// let argv: Vec<_> = argv.split(' ').map(Into::into).collect();
/// let Invocation::Run(args) = parse(&argv)? else { panic!("it is neither --help nor --version") };
/// assert_eq!(args.to_argv(), argv);
///
/// let refused = ["--id=vm-1".into()];
/// assert_eq!(parse(&refused).unwrap_err().kind(), ErrorKind::UnexpectedArgument);
/// # Ok::<(), jail_cmd::Error>(())
/// ```
///
/// # Errors
/// An argv that the grammar refuses ([`ErrorKind::is_grammar`]), then a value that a type refuses.
/// Firecracker's arguments are checked too.
pub fn parse(argv: &[OsString]) -> Result<Invocation, Error> {
    parse_for(JailerVersion::NEWEST, argv)
}

/// As [`parse`], for another release.
///
/// # Errors
/// As for [`parse`]. That the release takes every argument is asked with [`JailerArgs::check`].
pub fn parse_for(release: JailerVersion, argv: &[OsString]) -> Result<Invocation, Error> {
    Ok(match RawInvocation::parse(argv, release)? {
        RawInvocation::Run(raw) => Invocation::Run(Box::new(JailerArgs::try_from(*raw)?)),
        RawInvocation::Help => Invocation::Help,
        RawInvocation::Version => Invocation::Version,
    })
}

impl TryFrom<RawArgs> for JailerArgs {
    type Error = Error;

    fn try_from(raw: RawArgs) -> Result<Self, Error> {
        Ok(Self {
            id: raw.id.parse()?,
            exec_file: raw.exec_file.parse()?,
            uid: raw.uid.parse()?,
            gid: raw.gid.parse()?,
            chroot_base: optional(raw.chroot_base_dir)?,
            cgroup_version: optional(raw.cgroup_version)?,
            parent_cgroup: optional(raw.parent_cgroup)?,
            cgroups: each(&raw.cgroups)?,
            resource_limits: each(&raw.resource_limits)?,
            netns: optional(raw.netns)?,
            daemonize: raw.daemonize,
            new_pid_ns: raw.new_pid_ns,
            firecracker: firecracker(&raw.firecracker)?,
        })
    }
}

/// Reads what follows `--` as Firecracker does.
fn firecracker(items: &[String]) -> Result<FirecrackerArgs, Error> {
    let items: Vec<_> = items.iter().map(String::as_str).collect();
    let given = grammar::read(&items, ARGUMENTS).map_err(explain)?;
    let api = match (optional(given.value("api-sock"))?, given.has("no-api")) {
        // Firecracker takes both, and makes no socket.
        (Some(_), true) => {
            return Err(Error::new(
                ErrorKind::Combination,
                "--api-sock",
                "`--no-api` is there too",
            ));
        }
        (Some(socket), false) => Api::Socket(socket),
        (None, true) => Api::None,
        (None, false) => Api::Unsaid,
    };
    let args = FirecrackerArgs {
        api,
        config_file: optional(given.value("config-file"))?,
        metadata: optional(given.value("metadata"))?,
        log_path: optional(given.value("log-path"))?,
        level: optional(given.value("level"))?,
        module: optional(given.value("module"))?,
        show_level: given.has("show-level"),
        show_log_origin: given.has("show-log-origin"),
        metrics_path: optional(given.value("metrics-path"))?,
        seccomp_filter: optional(given.value("seccomp-filter"))?,
        boot_timer: given.has("boot-timer"),
        enable_pci: given.has("enable-pci"),
        http_api_max_payload_size: given
            .value("http-api-max-payload-size")
            .map(size)
            .transpose()?,
        mmds_size_limit: given.value("mmds-size-limit").map(size).transpose()?,
    };
    args.check_combination().map(|()| args)
}

fn optional<T: FromStr<Err = Error>>(text: Option<String>) -> Result<Option<T>, Error> {
    text.as_deref().map(str::parse).transpose()
}

fn each<T: FromStr<Err = Error>>(texts: &[String]) -> Result<Vec<T>, Error> {
    texts.iter().map(|text| text.parse()).collect()
}

/// Tells what Firecracker has and this crate does not from what nobody has.
fn explain(error: Error) -> Error {
    let name = error.value();
    if error.kind() != ErrorKind::UnexpectedArgument {
        error
    } else if FORBIDDEN.contains(&name) {
        Error::new(
            ErrorKind::ForbiddenArgument,
            name,
            "a VM that is confined is not started with it",
        )
    } else if GIVEN_BY_THE_JAILER.contains(&name) {
        Error::new(ErrorKind::DuplicateArgument, name, "the jailer gives it")
    } else {
        error
    }
}

fn size(text: String) -> Result<u64, Error> {
    text.parse()
        .map_err(|_| Error::new(ErrorKind::Size, text.as_str(), "it is not a 64-bit number"))
}

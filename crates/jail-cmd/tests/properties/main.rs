//! Properties of all values, tested with random values. `PROPTEST_CASES` sets the number of cases.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod strategies;

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use jail_cmd::{
    ErrorKind, ExecName, HostPath, Invocation, JailId, JailerVersion, Layout, RawInvocation, parse,
    parse_for,
};
use proptest::collection::vec;
use proptest::prelude::*;
use strategies::{hostile, hostile_args, id, jailer_args};

/// The jailer's arguments, written down once more: those with a value, and those without.
const JAILER: (&[&str], &[&str]) = (
    &[
        "--id",
        "--exec-file",
        "--uid",
        "--gid",
        "--chroot-base-dir",
        "--netns",
        "--cgroup",
        "--resource-limit",
        "--cgroup-version",
        "--parent-cgroup",
    ],
    &["--daemonize", "--new-pid-ns"],
);

/// Firecracker's arguments, except the arguments that no confined VM is started with.
const FIRECRACKER: (&[&str], &[&str]) = (
    &[
        "--api-sock",
        "--config-file",
        "--metadata",
        "--log-path",
        "--level",
        "--module",
        "--metrics-path",
        "--seccomp-filter",
        "--http-api-max-payload-size",
        "--mmds-size-limit",
    ],
    &["--no-api", "--show-level", "--show-log-origin", "--boot-timer", "--enable-pci"],
);

/// Checks that each item in the place of an argument is a known argument, and that no value can be
/// taken for an argument.
fn assert_only_known_arguments(items: &[&str], (with_value, switches): (&[&str], &[&str])) {
    let mut items = items.iter();
    while let Some(item) = items.next() {
        if with_value.contains(item) {
            let value = items.next().expect("a value follows");
            assert!(!value.starts_with("--") && *value != "-h", "{value:?} after {item}");
            assert!(!value.contains('\0'), "{value:?} cannot be passed");
        } else {
            assert!(switches.contains(item), "{item:?} is taken for an argument");
        }
    }
}

/// The official jailer's rule for ids, restated.
fn official_takes(id: &str) -> bool {
    (1..=64).contains(&id.len()) && id.chars().all(|c| c == '-' || c.is_alphanumeric())
}

/// Two names of VMs that are apart by little, or by what encoding does to the first.
fn close_names() -> impl Strategy<Value = (String, String)> {
    let name =
        prop_oneof![hostile(), "[A-Za-z0-9-]{1,64}", "[a-c/_-]{1,5}", id().prop_map(String::from)];
    let change = prop::sample::select(vec!['-', '_', '/', 'a', 'A', '\0', 'é']);
    (name, change, any::<prop::sample::Index>(), 0..6u8).prop_map(|(name, change, at, how)| {
        let chars: Vec<char> = name.chars().collect();
        let at = if chars.is_empty() { 0 } else { at.index(chars.len()) };
        let encoded = JailId::for_vm(&name).map(String::from).unwrap_or_default();
        let other = match how {
            0 => chars.iter().enumerate().map(|(i, c)| if i == at { change } else { *c }).collect(),
            1 => chars[..at].iter().collect(),
            2 => name.clone() + &change.to_string(),
            3 => name.to_ascii_uppercase(),
            4 => encoded,
            _ => chars.iter().map(|c| if c.is_ascii_alphanumeric() { *c } else { '-' }).collect(),
        };
        (name, other)
    })
}

/// Items that look like a command line, and bytes that do not.
fn any_argv() -> impl Strategy<Value = Vec<OsString>> {
    let known = [JAILER.0, JAILER.1, FIRECRACKER.0, FIRECRACKER.1].concat();
    let known = prop::sample::select(known).prop_map(OsString::from);
    let bytes = vec(any::<u8>(), 0..12).prop_map(OsString::from_vec);
    let item = prop_oneof![3 => known, 2 => hostile().prop_map(OsString::from), 1 => bytes];
    let required = "--id a --exec-file /firecracker --uid 1 --gid 1";
    let required: Vec<OsString> = required.split(' ').map(OsString::from).collect();
    (any::<bool>(), vec(item, 0..12)).prop_map(move |(complete, items)| {
        let mut argv = if complete { required.clone() } else { Vec::new() };
        argv.extend(items);
        argv
    })
}

proptest! {
    /// The strict parser, which shares nothing with the builder, reads back what was built.
    #[test]
    fn parse_of_build_is_the_identity(args in jailer_args()) {
        let parsed = parse(&args.to_argv());
        prop_assert_eq!(parsed, Ok(Invocation::Run(Box::new(args))));
    }

    /// Every release reads the same.
    #[test]
    fn every_release_reads_the_same(args in jailer_args(), minor in 0..20u16) {
        let parsed = parse_for(JailerVersion::new(1, minor, 0), &args.to_argv());
        prop_assert_eq!(parsed, Ok(Invocation::Run(Box::new(args))));
    }

    /// No value, however hostile, is read as an argument.
    #[test]
    fn no_value_becomes_an_argument(args in prop_oneof![jailer_args(), hostile_args()]) {
        let argv = args.to_argv();
        let items: Vec<&str> = argv.iter().map(|item| item.to_str().unwrap()).collect();
        let mut halves = items.splitn(2, |item| *item == "--");
        assert_only_known_arguments(halves.next().unwrap_or_default(), JAILER);
        assert_only_known_arguments(halves.next().unwrap_or_default(), FIRECRACKER);
        for banned in ["--help", "-h", "--version", "--no-seccomp"] {
            prop_assert!(!items.contains(&banned));
        }
        // The official grammar agrees on where Firecracker's arguments begin, and on their number.
        let RawInvocation::Run(raw) = RawInvocation::parse(&argv, JailerVersion::NEWEST).unwrap() else {
            return Err(TestCaseError::fail("starts nothing"));
        };
        let firecracker: Vec<OsString> = raw.firecracker.into_iter().map(Into::into).collect();
        prop_assert_eq!(args.firecracker.to_argv(), firecracker);
    }

    /// Two VMs never share a jail.
    #[test]
    fn for_vm_is_injective((a, b) in prop_oneof![close_names(), (any::<String>(), any::<String>())]) {
        if let (Ok(jail_a), Ok(jail_b)) = (JailId::for_vm(&a), JailId::for_vm(&b)) {
            prop_assert_eq!(jail_a == jail_b, a == b, "{:?} and {:?} in {}", a, b, jail_a);
        } else {
            prop_assert!(a.is_empty() || b.is_empty());
        }
    }

    /// For any VM id, every jailer accepts the jail id, and the jail id is a single path component.
    #[test]
    fn for_vm_ids_are_accepted(vm_id in hostile()) {
        if let Ok(id) = JailId::for_vm(&vm_id) {
            prop_assert!(official_takes(id.as_str()) && !id.as_str().starts_with('-'));
            prop_assert_eq!(JailId::new(id.as_str()), Ok(id));
        } else {
            prop_assert_eq!(vm_id, "");
        }
    }

    /// A valid id is used unchanged, unless the id looks encoded.
    #[test]
    fn for_vm_keeps_valid_ids(id in id()) {
        prop_assert_eq!(JailId::for_vm(id.as_str()).unwrap() == id, !id.looks_encoded());
    }

    /// No bytes make the parser panic, and each accepted command line is built again unchanged.
    #[test]
    fn any_bytes_are_read_or_refused(argv in any_argv(), minor in 0..20u16) {
        match parse_for(JailerVersion::new(1, minor, 0), &argv) {
            Ok(Invocation::Run(args)) => {
                prop_assert_eq!(parse(&args.to_argv()), Ok(Invocation::Run(args)));
            }
            Ok(Invocation::Help | Invocation::Version) => {}
            Err(error) => prop_assert!(!error.to_string().contains('\n') && error.to_string().len() < 2000),
        }
    }

    /// An error of the types names the refused value.
    #[test]
    fn refused_values_are_named(id in hostile(), uid in hostile()) {
        let argv = ["--id", &id, "--exec-file", "/x", "--uid", &uid, "--gid", "1"];
        let argv: Vec<OsString> = argv.map(Into::into).into();
        match parse(&argv) {
            Err(error) if error.kind() == ErrorKind::Id => prop_assert_eq!(error.value(), &id),
            Err(error) if error.kind() == ErrorKind::Uid => prop_assert_eq!(error.value(), &uid),
            Err(error) => prop_assert!(error.kind().is_grammar(), "{}", error),
            Ok(_) => {}
        }
    }

    /// A release is read or refused.
    #[test]
    fn any_text_is_a_release_or_not(
        text in prop_oneof![any::<String>(), "(Jailer v)?[0-9.]{0,8}(-[a-z0-9-]{0,8})?"],
    ) {
        if let Ok(release) = text.parse::<JailerVersion>() {
            prop_assert_eq!(release.to_string().parse(), Ok(release));
        }
    }

    /// Every path of a jail lies below the jail's directory, for all names.
    #[test]
    fn layout_stays_below_the_base(base in hostile(), exec in hostile(), vm_id in hostile()) {
        let id = JailId::for_vm(&vm_id);
        if let (Ok(base), Ok(exec), Ok(id)) = (HostPath::new(base), ExecName::new(exec), id) {
            let layout = Layout::new(base.clone(), exec, id);
            let files = [layout.exec_copy(), layout.pid_file(), layout.api_socket()];
            for path in files.into_iter().chain([layout.root(), layout.record()]) {
                prop_assert!(path.starts_with(layout.jail_dir()) && path.starts_with(base.as_path()));
                let below = path.strip_prefix(base.as_path()).unwrap();
                prop_assert!(below.components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert!(!path.as_os_str().as_bytes().contains(&0));
            }
        }
    }
}

#[cfg(feature = "serde")]
proptest! {
    /// Serialised values are read back unchanged.
    #[test]
    fn serialised_args_come_back(args in prop_oneof![jailer_args(), hostile_args()]) {
        let json = serde_json::to_string(&args).unwrap();
        prop_assert_eq!(serde_json::from_str::<jail_cmd::JailerArgs>(&json).unwrap(), args);
    }
}

//! The rows of `docs/jailer-contract.md` about arguments, and of the threat table about what a
//! tenant can name.
//!
//! The same command lines are given to the official jailer in `tests/launch/contract.rs`.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use jail_cmd::{
    ArtifactName, CgroupSetting, ErrorKind, ExecName, Feature, FirecrackerArgs, Gid, HostPath,
    Invocation, JailId, JailPath, JailerArgs, JailerVersion, ParentCgroup, RawArgs, RawInvocation,
    Uid, parse, parse_for,
};

const REQUIRED: &str = "--id vm-1 --exec-file /usr/bin/firecracker --uid 123 --gid 100";

fn argv(line: &str) -> Vec<OsString> {
    line.split(' ').filter(|item| !item.is_empty()).map(Into::into).collect()
}

/// The required arguments, with one value exchanged.
fn with(name: &str, value: &str) -> Vec<OsString> {
    let mut items = argv(REQUIRED);
    let at = items.iter().position(|item| item == name).unwrap();
    items[at + 1] = value.into();
    items
}

/// The required arguments and more.
fn and(more: &[&str]) -> Vec<OsString> {
    argv(REQUIRED).into_iter().chain(more.iter().map(Into::into)).collect()
}

fn kind(argv: &[OsString]) -> ErrorKind {
    parse(argv).unwrap_err().kind()
}

fn raw(argv: &[OsString]) -> RawArgs {
    match RawInvocation::parse(argv, JailerVersion::NEWEST).unwrap() {
        RawInvocation::Run(raw) => *raw,
        other => panic!("{other:?}"),
    }
}

#[test]
fn argv_of_0_4_is_exact() {
    let args = |settings: &[(&str, &str)]| {
        let args = JailerArgs::new(
            JailId::new("vm-1").unwrap(),
            HostPath::new("/usr/bin/firecracker").unwrap(),
            Uid::new(123).unwrap(),
            Gid::new(100).unwrap(),
        )
        .chroot_base(HostPath::new("/srv/jailer").unwrap())
        .cgroup_v2()
        .parent_cgroup(ParentCgroup::new("microvm.slice").unwrap())
        .new_pid_ns()
        .firecracker(FirecrackerArgs::new().api_sock(JailPath::new("/api.sock").unwrap()));
        settings.iter().fold(args, |args, (file, value)| {
            args.cgroup(CgroupSetting::new(*file, *value).unwrap())
        })
    };
    let front = format!(
        "{REQUIRED} --chroot-base-dir /srv/jailer --cgroup-version 2 --parent-cgroup microvm.slice"
    );
    let back = "--new-pid-ns -- --api-sock /api.sock";
    assert_eq!(args(&[]).to_argv(), argv(&format!("{front} {back}")));
    assert_eq!(
        args(&[("cpuset.mems", "1"), ("cpuset.cpus", "0-3")]).to_argv(),
        argv(&format!("{front} --cgroup cpuset.mems=1 --cgroup cpuset.cpus=0-3 {back}")),
    );
}

#[test]
fn argv_order_is_fixed() {
    let line = format!(
        "{REQUIRED} --chroot-base-dir /b --cgroup-version 1 --parent-cgroup p --cgroup pids.max=1 \
         --cgroup cpu.shares=2 --resource-limit fsize=1024 --resource-limit no-file=64 \
         --netns /run/netns/n --daemonize --new-pid-ns -- --no-api --config-file /vm.json"
    );
    let Invocation::Run(args) = parse(&argv(&line)).unwrap() else { panic!("it starts a VM") };
    assert_eq!(args.to_argv(), argv(&line));
    // Given in any other order, it says the same.
    let mut shuffled = argv(&line);
    shuffled[..8].rotate_left(2);
    assert_eq!(parse(&shuffled).unwrap(), Invocation::Run(args));
}

#[test]
fn required_arguments_are_the_four() {
    // The official jailer names the first that is missing, by name.
    for (line, missing) in [
        ("", "exec-file"),
        ("--uid 1 --gid 1 --id a", "exec-file"),
        ("--id a --exec-file /x --uid 1", "gid"),
        ("--exec-file /x --uid 1 --gid 1", "id"),
        ("--id a --exec-file /x --gid 1", "uid"),
    ] {
        let error = parse(&argv(line)).unwrap_err();
        assert_eq!((error.kind(), error.value()), (ErrorKind::MissingArgument, missing), "{line}");
    }
    assert!(parse(&argv(REQUIRED)).is_ok());
}

#[test]
fn defaults_are_left_to_the_jailer() {
    let raw = raw(&argv(REQUIRED));
    assert_eq!(
        (raw.chroot_base_dir, raw.cgroup_version, raw.parent_cgroup, raw.netns),
        (None, None, None, None)
    );
    assert_eq!((raw.daemonize, raw.new_pid_ns, raw.firecracker.len()), (false, false, 0));
    assert_eq!(JailerArgs::DEFAULT_CHROOT_BASE, "/srv/jailer");
}

#[test]
fn two_items_a_flag() {
    for item in [
        "--id=x",
        "--daemonize=true",
        "-id",
        "id",
        "x",
        "",
        "---id",
        "--ID",
        "--numa-node",
        "--node",
        "--seccomp-level",
    ] {
        let error = parse(&and(&[item])).unwrap_err();
        let name = item.strip_prefix("--").unwrap_or(item);
        assert_eq!((error.kind(), error.value()), (ErrorKind::UnexpectedArgument, name));
    }
    assert_eq!(kind(&and(&["--daemonize", "true"])), ErrorKind::UnexpectedArgument);
}

#[test]
fn values_never_begin_with_hyphens() {
    for value in ["--x", "--netns", "---"] {
        assert_eq!(kind(&and(&["--netns", value])), ErrorKind::MissingValue);
    }
    assert_eq!(kind(&and(&["--netns"])), ErrorKind::MissingValue);
    // One hyphen is a value like any other: to the grammar.
    assert_eq!(raw(&and(&["--parent-cgroup", "-x"])).parent_cgroup.as_deref(), Some("-x"));
}

#[test]
fn first_double_hyphen_splits() {
    let split = raw(&and(&["--", "a", "--", "--id"]));
    assert_eq!(split.firecracker, ["a", "--", "--id"]);
    // As a value it takes the value away.
    assert_eq!(kind(&with("--id", "--")), ErrorKind::MissingValue);
}

#[test]
fn help_and_version_win() {
    for (more, expected) in [
        (vec!["--help"], Invocation::Help),
        (vec!["--version"], Invocation::Version),
        (vec!["--version", "--help"], Invocation::Help),
        (vec!["--no-such", "--version"], Invocation::Version),
        (vec!["--netns", "--help"], Invocation::Help),
    ] {
        assert_eq!(parse(&and(&more)).unwrap(), expected, "{more:?}");
    }
    assert_eq!(parse(&with("--id", "--version")).unwrap(), Invocation::Version);
    assert_eq!(parse(&["--help".into()]).unwrap(), Invocation::Help);
    // After it, they are Firecracker's, and this crate's types do not have them.
    assert_eq!(raw(&and(&["--", "--help"])).firecracker, ["--help"]);
    assert_eq!(kind(&and(&["--", "--help"])), ErrorKind::ForbiddenArgument);
}

#[test]
fn short_help_wins_since_1_10() {
    let argv = with("--id", "-h");
    let old = JailerVersion::new(1, 9, 1);
    assert!(!old.supports(Feature::ShortHelp));
    let RawInvocation::Run(raw) = RawInvocation::parse(&argv, old).unwrap() else {
        panic!("1.9.1 has no -h")
    };
    assert_eq!(raw.id, "-h");
    assert_eq!(parse_for(old, &argv).unwrap_err().kind(), ErrorKind::Id);
    assert_eq!(parse_for(JailerVersion::new(1, 10, 0), &argv).unwrap(), Invocation::Help);
}

#[test]
fn items_are_utf8() {
    let not_utf8 = OsString::from_vec(b"/\xff".to_vec());
    for argv in [
        and(&["--netns"]).into_iter().chain([not_utf8.clone()]).collect::<Vec<_>>(),
        and(&["--"]).into_iter().chain([not_utf8.clone()]).collect(),
        vec!["--help".into(), not_utf8],
    ] {
        assert_eq!(kind(&argv), ErrorKind::NotUtf8);
    }
}

#[test]
fn repeated_arguments_are_refused() {
    for more in [["--id", "b"], ["--exec-file", "/x"], ["--uid", "1"], ["--gid", "1"]] {
        assert_eq!(kind(&and(&more)), ErrorKind::DuplicateArgument, "{more:?}");
    }
    for more in [
        ["--netns", "/n"],
        ["--chroot-base-dir", "/b"],
        ["--cgroup-version", "2"],
        ["--parent-cgroup", "p"],
    ] {
        assert_eq!(kind(&and(&[more, more].concat())), ErrorKind::DuplicateArgument, "{more:?}");
    }
    assert_eq!(kind(&and(&["--daemonize", "--daemonize"])), ErrorKind::DuplicateArgument);
    assert_eq!(kind(&and(&["--new-pid-ns", "--new-pid-ns"])), ErrorKind::DuplicateArgument);
    let raw = raw(&and(&[
        "--cgroup",
        "pids.max=1",
        "--cgroup",
        "pids.max=2",
        "--resource-limit",
        "x",
        "--resource-limit",
        "x",
    ]));
    assert_eq!((raw.cgroups.len(), raw.resource_limits.len()), (2, 2));
}

/// Arguments that the official jailer accepts and this crate's types refuse have an error kind other
/// than the grammar's.
#[test]
fn types_are_stricter_than_grammar() {
    for (argv, kind) in [
        (with("--id", "é"), ErrorKind::Id),
        (with("--id", "-"), ErrorKind::Id),
        (with("--id", "-a"), ErrorKind::Id),
        (with("--uid", "0"), ErrorKind::Uid),
        (with("--gid", "0"), ErrorKind::Gid),
        (with("--uid", "4294967295"), ErrorKind::Uid),
        (with("--exec-file", "bin/firecracker"), ErrorKind::HostPath),
        (and(&["--chroot-base-dir", "jails/../jails"]), ErrorKind::HostPath),
        (and(&["--parent-cgroup", ""]), ErrorKind::ParentCgroup),
        (and(&["--cgroup-version", "3"]), ErrorKind::CgroupVersion),
        (and(&["--resource-limit", "fsize=1"]), ErrorKind::ResourceLimit),
        (and(&["--", "--no-seccomp"]), ErrorKind::ForbiddenArgument),
        (
            and(&["--", "--no-api", "--api-sock", "/a", "--config-file", "/c"]),
            ErrorKind::Combination,
        ),
    ] {
        raw(&argv);
        let error = parse(&argv).unwrap_err();
        assert!(!error.kind().is_grammar());
        assert_eq!(error.kind(), kind, "{argv:?}: {error}");
    }
}

#[test]
fn impossible_values_are_refused() {
    for (argv, kind) in [
        (with("--id", ""), ErrorKind::Id),
        (with("--id", "a.b"), ErrorKind::Id),
        (with("--id", "a_b"), ErrorKind::Id),
        (with("--id", &"a".repeat(65)), ErrorKind::Id),
        (with("--uid", "4294967296"), ErrorKind::Uid),
        (with("--uid", "-1"), ErrorKind::Uid),
        (with("--uid", "x"), ErrorKind::Uid),
        (with("--gid", ""), ErrorKind::Gid),
        (and(&["--cgroup-version", "v2"]), ErrorKind::CgroupVersion),
        (and(&["--parent-cgroup", "/a"]), ErrorKind::ParentCgroup),
        (and(&["--parent-cgroup", "a/../b"]), ErrorKind::ParentCgroup),
        (and(&["--cgroup", "pids.max="]), ErrorKind::CgroupSetting),
        (and(&["--cgroup", "pids.max"]), ErrorKind::CgroupSetting),
        (and(&["--cgroup", "a=b=c"]), ErrorKind::CgroupSetting),
        (and(&["--cgroup", "io.max=8:0 rbps=1"]), ErrorKind::CgroupSetting),
        (and(&["--cgroup", "../x.max=1"]), ErrorKind::CgroupSetting),
        (and(&["--resource-limit", "nproc=1"]), ErrorKind::ResourceLimit),
        (and(&["--resource-limit", "no-file=x"]), ErrorKind::ResourceLimit),
        (and(&["--resource-limit", "no-file"]), ErrorKind::ResourceLimit),
        (and(&["--", "--no-api"]), ErrorKind::Combination),
        (and(&["--", "--level", "loud"]), ErrorKind::LogLevel),
        (and(&["--", "--mmds-size-limit", "x"]), ErrorKind::Size),
    ] {
        let error = parse(&argv).unwrap_err();
        assert_eq!(error.kind(), kind, "{argv:?}: {error}");
    }
}

#[test]
fn jailers_own_arguments_are_refused() {
    for name in ["--id", "--start-time-us", "--start-time-cpu-us", "--parent-cpu-time-us"] {
        assert_eq!(kind(&and(&["--", name, "1"])), ErrorKind::DuplicateArgument);
    }
    for name in ["--snapshot-version", "--describe-snapshot", "--version", "-h"] {
        assert_eq!(kind(&and(&["--", name])), ErrorKind::ForbiddenArgument);
    }
    assert_eq!(kind(&and(&["--", "--seccomp-level", "0"])), ErrorKind::UnexpectedArgument);
    assert_eq!(kind(&and(&["--", "--boot-timer", "--boot-timer"])), ErrorKind::DuplicateArgument);
}

#[test]
fn exec_name_depends_on_the_release() {
    let args = |exec_file: &str| {
        let exec_file = HostPath::new(exec_file).unwrap();
        JailerArgs::new(
            JailId::new("a").unwrap(),
            exec_file,
            Uid::new(1).unwrap(),
            Gid::new(1).unwrap(),
        )
    };
    let release = |minor| JailerVersion::new(1, minor, 0);
    for minor in 0..=16 {
        args("/opt/my-firecracker-v1").check(release(minor)).unwrap();
        let check = args("/opt/firecracker/stub").check(release(minor));
        if (2..=12).contains(&minor) {
            let error = check.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::UnsupportedByRelease);
            assert!(error.to_string().contains("/opt/firecracker/stub"), "{error}");
        } else {
            check.unwrap();
        }
    }
    let error = args("/firecracker").check(JailerVersion::new(0, 25, 2)).unwrap_err();
    assert_eq!((error.kind(), error.value()), (ErrorKind::UnsupportedByRelease, "jailer 0.25.2"));
}

#[test]
fn deadly_limits_are_refused() {
    use jail_cmd::ResourceLimit::{FileSize, OpenFiles};
    let args = |limit| {
        let exec_file = HostPath::new("/firecracker").unwrap();
        JailerArgs::new(
            JailId::new("a").unwrap(),
            exec_file,
            Uid::new(1).unwrap(),
            Gid::new(1).unwrap(),
        )
        .resource_limit(limit)
    };
    for (limit, value) in [(FileSize(1), "fsize=1"), (OpenFiles(3), "no-file=3")] {
        let error = args(limit).check(JailerVersion::NEWEST).unwrap_err();
        assert_eq!((error.kind(), error.value()), (ErrorKind::ResourceLimit, value));
    }
    for limit in [FileSize(10), OpenFiles(4), FileSize(u64::MAX)] {
        args(limit).check(JailerVersion::NEWEST).unwrap();
    }
}

#[test]
fn threat_10_bad_ids_are_named() {
    for id in ["../x", "a/b", "a\0b", "", &"a".repeat(65), "é", "-h", "--", "--daemonize"] {
        let error = JailId::new(id).unwrap_err();
        assert_eq!((error.kind(), error.value()), (ErrorKind::Id, id));
        assert!(error.to_string().contains(&format!("{id:?}")), "{error}");
        // As the name of a VM each is fine but the empty one, and becomes an id that is.
        assert_eq!(JailId::for_vm(id).is_err(), id.is_empty());
    }
}

#[test]
fn threat_11_two_names_are_two_jails() {
    let names = ["a/b", "a_b", "a-b", "a.b", "a b", "A/b", "a//b", "a/b/", "/a/b", "a\0b"];
    let mut jails: Vec<_> = names.iter().map(|name| JailId::for_vm(name).unwrap()).collect();
    // Nor can one be taken by asking for the id another was given.
    let taken: Vec<_> = jails.iter().map(|id| JailId::for_vm(id.as_str()).unwrap()).collect();
    jails.extend(taken.into_iter().filter(|id| id.as_str() != "a-b"));
    let count = jails.len();
    jails.sort();
    jails.dedup();
    assert_eq!((jails.len(), count), (19, 19));
}

#[test]
fn threat_12_reserved_names_are_refused() {
    let exec = ExecName::new("firecracker").unwrap();
    for name in [
        "vmlinux",
        "initrd",
        "firecracker",
        "firecracker.pid",
        "api.sock",
        "vm.json",
        "dev",
        "run",
        "old_root",
        "sys",
        ".",
        "..",
        "a/b",
        "",
    ] {
        let error = ArtifactName::new(name, &exec).unwrap_err();
        assert_eq!((error.kind(), error.value()), (ErrorKind::ArtifactName, name));
    }
}

#[test]
fn threat_13_nothing_is_injected() {
    for text in ["--", "--no-seccomp", "-h", "a\nb", "a\0b"] {
        assert!(JailId::new(text).is_err());
        assert!(HostPath::new(text).is_err());
        assert!(JailPath::new(text).is_err());
        assert!(ParentCgroup::new(text).is_err());
        assert!(CgroupSetting::new(text, "1").is_err());
        assert!(text.parse::<jail_cmd::LogLevel>().is_err());
        assert!(jail_cmd::LogModule::new(text).is_err());
    }
    for value in ["1=2", "1\n2", "1\0", "", " "] {
        let error = CgroupSetting::new("pids.max", value).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::CgroupSetting);
        assert!(
            error.to_string().contains(&format!("{:?}", format!("pids.max={value}"))),
            "{error}"
        );
    }
}

#[test]
fn threat_14_root_is_refused() {
    for number in [0, u32::MAX] {
        assert_eq!(Uid::new(number).unwrap_err().value(), number.to_string());
        assert_eq!(Gid::new(number).unwrap_err().value(), number.to_string());
    }
}

#[cfg(feature = "serde")]
mod serde {
    use super::*;

    fn refused<T: ::serde::de::DeserializeOwned + std::fmt::Debug>(json: &str, word: &str) {
        let error = serde_json::from_str::<T>(json).unwrap_err().to_string();
        assert!(error.contains(word), "{json}: {error}");
    }

    #[test]
    fn deserialised_values_are_checked() {
        refused::<JailId>(r#""a_b""#, "a_b");
        refused::<HostPath>(r#""/a/../b""#, "/a/../b");
        refused::<JailPath>(r#""api.sock""#, "api.sock");
        refused::<ExecName>(r#""dev""#, "dev");
        refused::<ArtifactName>(r#""old_root""#, "old_root");
        refused::<ParentCgroup>(r#""/a""#, "/a");
        refused::<CgroupSetting>(r#""io.max=a=b""#, "io.max=a=b");
        refused::<jail_cmd::LogModule>(r#""-h""#, "-h");
        refused::<JailerVersion>(r#""1.2""#, "1.2");
        refused::<Uid>("0", "root");
        refused::<Gid>("4294967295", "4294967295");
    }

    #[test]
    fn forms_are_plain() {
        let json = |value: serde_json::Value| value.to_string();
        let to = |uid: Uid| serde_json::to_value(uid).map(json).unwrap();
        assert_eq!(
            (to(Uid::new(5).unwrap()).as_str(), to(Uid::root()).as_str()),
            ("5", r#""root""#)
        );
        assert_eq!(serde_json::from_str::<Uid>(r#""root""#).unwrap(), Uid::root());
        assert_eq!(serde_json::to_string(&JailerVersion::NEWEST).unwrap(), r#""1.16.1""#);
        let exec_file = HostPath::new("/usr/bin/firecracker").unwrap();
        let args = JailerArgs::new(
            JailId::new("vm-1").unwrap(),
            exec_file,
            Uid::new(123).unwrap(),
            Gid::new(100).unwrap(),
        );
        let args = serde_json::to_value(args.cgroup_v2()).unwrap();
        assert_eq!(args["cgroup_version"], "v2");
        let setting = CgroupSetting::new("pids.max", "1").unwrap();
        assert_eq!(serde_json::to_string(&setting).unwrap(), r#""pids.max=1""#);
        let boot = ArtifactName::for_boot("vmlinux").unwrap();
        assert_eq!(serde_json::from_str::<ArtifactName>(r#""vmlinux""#).unwrap(), boot);
    }
}

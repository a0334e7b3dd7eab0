//! Strategies for all values that the types accept.

use std::fmt::Debug;

use jail_cmd::{
    CgroupSetting, FirecrackerArgs, Gid, HostPath, JailId, JailPath, JailerArgs, LogLevel,
    LogModule, ParentCgroup, ResourceLimit, Uid,
};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// Text that has hurt a command line before.
pub(crate) fn hostile() -> impl Strategy<Value = String> {
    let known = prop::sample::select(vec![
        "",
        "-",
        "--",
        "-h",
        "--help",
        "--version",
        "--daemonize",
        "--no-seccomp",
        "--id",
        "--id=x",
        "--uid",
        "=",
        "a=b=c",
        "/",
        "/--",
        "/-h",
        "..",
        "/../x",
        "../x",
        "a/b",
        "a_b",
        "é",
        "a\0b",
        "a\nb",
        "io.max=8:0 rbps=1",
        "pids.max=1",
        "0",
        "4294967295",
        "firecracker",
        "dev",
        "fsize=1",
        "no-file=4",
    ])
    .prop_map(str::to_owned);
    let glued = (known.clone(), known.clone()).prop_map(|(a, b)| a + &b);
    prop_oneof![2 => known, 1 => glued, 2 => any::<String>(), 1 => "[-=/.a-z0-9]{0,12}"]
}

/// Returns the values that `make` accepts.
fn accepted<T: Debug, E>(
    text: &'static str,
    make: impl Fn(String) -> Result<T, E> + Clone + 'static,
) -> impl Strategy<Value = T> + Clone {
    text.prop_filter_map("refused by the type", move |text| make(text).ok())
}

pub(crate) fn id() -> impl Strategy<Value = JailId> + Clone {
    accepted("[A-Za-z0-9][A-Za-z0-9-]{0,63}", JailId::new)
}

fn host_path() -> impl Strategy<Value = HostPath> + Clone {
    accepted(r"(/[^/\p{Cc}]{1,12}){1,5}", HostPath::new)
}

fn jail_path() -> impl Strategy<Value = JailPath> + Clone {
    accepted(r"(/[^/\p{Cc}]{1,12}){1,3}", JailPath::new)
}

fn parent() -> impl Strategy<Value = ParentCgroup> + Clone {
    accepted(r"[^-/\p{Cc}][^/\p{Cc}]{0,12}(/[^/\p{Cc}]{1,12}){0,3}", ParentCgroup::new)
}

fn setting() -> impl Strategy<Value = CgroupSetting> + Clone {
    (r"[a-z][A-Za-z0-9_-]{0,8}(\.[A-Za-z0-9_-]{1,8}){1,3}", "[ -<>-~]{1,24}")
        .prop_filter_map("refused by the type", |(file, value)| {
            CgroupSetting::new(file, value).ok()
        })
}

fn limit() -> impl Strategy<Value = ResourceLimit> + Clone {
    prop_oneof![
        (10..=u64::MAX).prop_map(ResourceLimit::FileSize),
        (4..=u64::MAX).prop_map(ResourceLimit::OpenFiles),
    ]
}

fn level() -> impl Strategy<Value = LogLevel> + Clone {
    use LogLevel::{Debug, Error, Info, Off, Trace, Warning};
    prop::sample::select(vec![Off, Trace, Debug, Info, Warning, Error])
}

/// Sets what is there.
fn set<T, V>(to: T, value: Option<V>, setter: impl FnOnce(T, V) -> T) -> T {
    match value {
        Some(value) => setter(to, value),
        None => to,
    }
}

fn flag<T>(to: T, on: bool, setter: impl FnOnce(T) -> T) -> T {
    if on { setter(to) } else { to }
}

/// All accepted combinations of Firecracker's arguments.
pub(crate) fn firecracker_args() -> impl Strategy<Value = FirecrackerArgs> {
    let path = || option::of(jail_path());
    let files = (path(), path(), path(), path(), path());
    let log = (option::of(level()), option::of(accepted(r"[^-\p{Cc}]\PC{0,12}", LogModule::new)));
    let switches = any::<[bool; 5]>();
    (path(), files, log, switches, any::<[Option<u64>; 2]>()).prop_map(
        |(socket, (config, metadata, log, metrics, filter), (level, module), switches, sizes)| {
            let [no_api, show_level, show_origin, boot_timer, pci] = switches;
            // Alone, `--no-api` is refused.
            let no_api = no_api && config.is_some();
            let args = set(FirecrackerArgs::new(), socket, FirecrackerArgs::api_sock);
            let args = flag(args, no_api, FirecrackerArgs::no_api);
            let args = set(args, config, FirecrackerArgs::config_file);
            let args = set(args, metadata, FirecrackerArgs::metadata);
            let args = set(args, log, FirecrackerArgs::log_path);
            let args = set(args, metrics, FirecrackerArgs::metrics_path);
            let args = set(args, filter, FirecrackerArgs::seccomp_filter);
            let args = set(args, level, FirecrackerArgs::level);
            let args = set(args, module, FirecrackerArgs::module);
            let args = flag(args, show_level, FirecrackerArgs::show_level);
            let args = flag(args, show_origin, FirecrackerArgs::show_log_origin);
            let args = flag(args, boot_timer, FirecrackerArgs::boot_timer);
            let args = flag(args, pci, FirecrackerArgs::enable_pci);
            let args = set(args, sizes[0], FirecrackerArgs::http_api_max_payload_size);
            set(args, sizes[1], FirecrackerArgs::mmds_size_limit)
        },
    )
}

/// Everything that the jailer can be told, as a user that is not root.
pub(crate) fn jailer_args() -> impl Strategy<Value = JailerArgs> {
    let user = 1..u32::MAX;
    let required = (id(), host_path(), user.clone(), user);
    let version = option::of(prop::sample::select(vec![
        JailerArgs::cgroup_v1 as fn(JailerArgs) -> JailerArgs,
        JailerArgs::cgroup_v2,
    ]));
    let places = (option::of(host_path()), version, option::of(parent()), option::of(host_path()));
    let repeated = (vec(setting(), 0..4), vec(limit(), 0..4));
    (required, places, repeated, any::<[bool; 2]>(), firecracker_args()).prop_map(
        |(
            (id, exec_file, uid, gid),
            (base, version, parent, netns),
            (settings, limits),
            switches,
            firecracker,
        )| {
            let [daemonize, new_pid_ns] = switches;
            let args =
                JailerArgs::new(id, exec_file, Uid::new(uid).unwrap(), Gid::new(gid).unwrap());
            let args = set(args, base, JailerArgs::chroot_base);
            let args = set(args, version, |args, set_version| set_version(args));
            let args = set(args, parent, JailerArgs::parent_cgroup);
            let args = settings.into_iter().fold(args, JailerArgs::cgroup);
            let args = limits.into_iter().fold(args, JailerArgs::resource_limit);
            let args = set(args, netns, JailerArgs::netns);
            let args = flag(args, daemonize, JailerArgs::daemonize);
            let args = flag(args, new_pid_ns, JailerArgs::new_pid_ns);
            args.firecracker(firecracker)
        },
    )
}

/// As [`jailer_args`], with each text that the types take out of [`hostile`] ones.
pub(crate) fn hostile_args() -> impl Strategy<Value = JailerArgs> {
    let texts = || prop::array::uniform10(hostile());
    (jailer_args(), texts(), any::<bool>()).prop_map(|(args, texts, root)| {
        let [id, exec_file, base, netns, parent, file, value, socket, config, module] = texts;
        let (uid, gid) = if root { (Uid::root(), Gid::root()) } else { (args.uid, args.gid) };
        let id = JailId::new(id.as_str())
            .or_else(|_| JailId::for_vm(&id))
            .unwrap_or_else(|_| args.id.clone());
        let exec_file = HostPath::new(exec_file).unwrap_or_else(|_| args.exec_file.clone());
        let firecracker = args.firecracker.clone();
        let firecracker = set(firecracker, JailPath::new(socket).ok(), FirecrackerArgs::api_sock);
        let firecracker =
            set(firecracker, JailPath::new(config).ok(), FirecrackerArgs::config_file);
        let firecracker = set(firecracker, LogModule::new(module).ok(), FirecrackerArgs::module);
        let args = JailerArgs::new(id, exec_file, uid, gid).firecracker(firecracker);
        let args = set(args, HostPath::new(base).ok(), JailerArgs::chroot_base);
        let args = set(args, HostPath::new(netns).ok(), JailerArgs::netns);
        let args = set(args, ParentCgroup::new(parent).ok(), JailerArgs::parent_cgroup);
        let args =
            set(args, CgroupSetting::new(file.as_str(), value.as_str()).ok(), JailerArgs::cgroup);
        let args = set(args, CgroupSetting::new("pids.max", value).ok(), JailerArgs::cgroup);
        set(args, file.parse().ok(), JailerArgs::resource_limit)
    })
}

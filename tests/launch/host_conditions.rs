//! Conditions of the host that a launch needs, each made wrong: the check is named before anything is touched. The
//! right ones are every other launch.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::Path;

use microvm_runtime::{JailSpec, JailerConfig};
use nix::errno::Errno;
use nix::libc;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use testkit::inherited;

use crate::inherited::{goes_well, is_refused};

/// The calls that a filter refuses here, by name.
const CALLS: [(&str, i64); 15] = [
    ("openat2", libc::SYS_openat2),
    ("clone3", libc::SYS_clone3),
    ("pidfd_open", libc::SYS_pidfd_open),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("close_range", libc::SYS_close_range),
    ("renameat2", libc::SYS_renameat2),
    ("statx", libc::SYS_statx),
    ("keyctl", libc::SYS_keyctl),
    ("seccomp", libc::SYS_seccomp),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("pivot_root", libc::SYS_pivot_root),
    ("mknodat", libc::SYS_mknodat),
];

/// The v1 hierarchy that allows and denies devices.
const DEVICES: &str = "/sys/fs/cgroup/devices";

fn remount(flags: MsFlags) {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | flags, None::<&str>).unwrap();
}

fn mount_proc(options: &str) {
    remount(MsFlags::MS_PRIVATE);
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), Some(options)).unwrap();
}

/// Executes the test again with the same specification, and exits with the same status.
fn again(test: &str, change: impl FnOnce(&mut std::process::Command)) -> ! {
    let mut command = testkit::reenter(test, "plain/1");
    change(&mut command);
    let status = command.status().unwrap();
    std::process::exit(i32::from(!status.success()));
}

/// Sets the condition of this name in this process.
pub(crate) fn set(test: &str, name: &str, value: &str, spec: &JailSpec, config: &JailerConfig) {
    let _ = spec;
    match name {
        "plain" => {}
        "stale-proc" => {
            unshare(CloneFlags::CLONE_NEWPID).unwrap();
            again(test, |_| ());
        }
        "no-proc" => {
            remount(MsFlags::MS_PRIVATE);
            umount2("/proc", MntFlags::MNT_DETACH).unwrap();
        }
        "subset-proc" => mount_proc("subset=pid"),
        "hidden-processes" => mount_proc("hidepid=2"),
        "user-namespace" => {
            let plain = testkit::reenter(test, "plain/1");
            let mut command = std::process::Command::new("unshare");
            command.args(["--user", "--map-root-user"]).arg(std::env::current_exe().unwrap());
            command.args(plain.get_args());
            for (name, value) in plain.get_envs() {
                command.env(name, value.unwrap_or_default());
            }
            let status = command.status().unwrap();
            std::process::exit(i32::from(!status.success()));
        }
        "chroot" => {
            remount(MsFlags::MS_PRIVATE);
            let root = config.chroot_base.with_file_name("chroot");
            let proc = root.join("proc");
            fs::create_dir_all(&proc).unwrap();
            mount(Some("/proc"), &proc, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
            nix::unistd::chroot(&root).unwrap();
            nix::unistd::chdir("/").unwrap();
        }
        "refuse" => {
            let (call, errno) = value.split_once(' ').unwrap();
            let (_, number) = CALLS.iter().find(|(name, _)| *name == call).unwrap();
            let errno = if errno == "ENOSYS" { Errno::ENOSYS } else { Errno::EPERM };
            inherited::refuse_call(*number, errno);
        }
        "closed" => {
            // Not stdout, on which the test is told what came of it.
            for fd in [std::io::stdin().as_raw_fd(), std::io::stderr().as_raw_fd()] {
                nix::unistd::close(fd).unwrap();
            }
        }
        "no-cwd" => {
            let gone = config.chroot_base.with_file_name("gone");
            fs::create_dir(&gone).unwrap();
            nix::unistd::chdir(&gone).unwrap();
            fs::remove_dir(&gone).unwrap();
        }
        "bare-environment" => again(test, |command| {
            for name in ["PATH", "HOME", "TMPDIR", "USER", "LANG", "SHELL"] {
                command.env_remove(name);
            }
        }),
        "hostile-environment" => again(test, |command| {
            command
                .env("PATH", ".:")
                .env("TMPDIR", "nowhere")
                .env("HOME", "")
                .env("LD_PRELOAD", "");
        }),
        "propagation" => remount(match value {
            "shared" => MsFlags::MS_SHARED,
            "slave" => MsFlags::MS_SLAVE,
            _ => MsFlags::MS_PRIVATE,
        }),
        "no-kvm" => {
            let group = Path::new(DEVICES).join(config.cgroup_parent.as_str());
            fs::create_dir(&group).unwrap();
            fs::write(group.join("devices.deny"), "c 10:232 rwm").unwrap();
            fs::write(group.join("cgroup.procs"), "0").unwrap();
        }
        "base" => mount_base(value, &config.chroot_base),
        other => panic!("no condition {other:?}"),
    }
}

fn mount_base(kind: &str, base: &Path) {
    remount(MsFlags::MS_PRIVATE);
    fs::create_dir_all(base).unwrap();
    let tmpfs = |at: &Path, flags| {
        mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some("mode=0755")).unwrap();
    };
    match kind {
        "tmpfs" => tmpfs(base, MsFlags::empty()),
        "nodev" => tmpfs(base, MsFlags::MS_NODEV),
        "noexec" => tmpfs(base, MsFlags::MS_NOEXEC),
        "ro" => tmpfs(base, MsFlags::MS_RDONLY),
        "overlay" => {
            let side = base.with_file_name("side");
            fs::create_dir(&side).unwrap();
            tmpfs(&side, MsFlags::empty());
            for name in ["lower", "upper", "work"] {
                fs::create_dir(side.join(name)).unwrap();
            }
            let side = side.display();
            let options =
                format!("lowerdir={side}/lower,upperdir={side}/upper,workdir={side}/work");
            mount(Some("overlay"), base, Some("overlay"), MsFlags::empty(), Some(&*options))
                .unwrap();
        }
        other => panic!("no base {other:?}"),
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn another_namespaces_proc_is_named() {
    let test = "host_conditions::another_namespaces_proc_is_named";
    is_refused(
        test,
        "stale-proc",
        &["host check \"proc\"", "another pid namespace", "mount -t proc"],
    );
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_missing_proc_is_named() {
    let test = "host_conditions::a_missing_proc_is_named";
    is_refused(test, "no-proc", &["host check \"proc\"", "no procfs is mounted"]);
    is_refused(test, "subset-proc", &["host check \"proc\"", "subset=pid"]);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn hidden_processes_do_not_matter() {
    goes_well("host_conditions::hidden_processes_do_not_matter", &["hidden-processes"], 1);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_user_namespace_is_named() {
    let test = "host_conditions::a_user_namespace_is_named";
    is_refused(test, "user-namespace", &["Privilege", "user namespace", "uid_map: 0 0 1)"]);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_root_that_is_no_mount_is_named() {
    let test = "host_conditions::a_root_that_is_no_mount_is_named";
    is_refused(test, "chroot", &["host check \"root mount\"", "mount --bind"]);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_refused_call_is_named() {
    let test = "host_conditions::each_refused_call_is_named";
    for (call, _) in CALLS {
        for errno in ["EPERM", "ENOSYS"] {
            // A kernel without keys answers so.
            if (call, errno) == ("keyctl", "ENOSYS") {
                continue;
            }
            let refused = format!("{call} ({errno})");
            is_refused(test, &format!("refuse {call} {errno}"), &[&refused, "seccomp filter"]);
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn streams_directory_and_environment_do_not_matter() {
    let test = "host_conditions::streams_directory_and_environment_do_not_matter";
    goes_well(test, &["closed", "no-cwd", "bare-environment", "hostile-environment"], 1);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn mount_propagation_does_not_matter() {
    let test = "host_conditions::mount_propagation_does_not_matter";
    goes_well(test, &["propagation shared", "propagation slave", "propagation private"], 1);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn the_bases_filesystem_does_not_matter() {
    let test = "host_conditions::the_bases_filesystem_does_not_matter";
    goes_well(test, &["base tmpfs", "base overlay"], 1);
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn mount_flags_of_the_base_are_named() {
    let test = "host_conditions::mount_flags_of_the_base_are_named";
    for flag in ["nodev", "noexec", "ro"] {
        is_refused(test, &format!("base {flag}"), &["Unsupported", &format!("mounted {flag}")]);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_denied_kvm_is_named() {
    let test = "host_conditions::a_denied_kvm_is_named";
    let official = testkit::Binaries::find().are_official();
    if !official || !Path::new(DEVICES).join("devices.deny").exists() {
        return testkit::skip(test, "it takes the official binaries and a v1 devices hierarchy");
    }
    is_refused(test, "no-kvm", &["EarlyDeath", "/dev/kvm"]);
}

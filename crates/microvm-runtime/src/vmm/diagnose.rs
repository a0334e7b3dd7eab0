//! The meaning of an exit status and of the last output.

use super::diagnosis::Diagnosis;
use super::failure_patterns;
use super::status::ExitStatus;

/// Returns the diagnosis of an exit, with the sentence of the output that gives the reason.
pub(super) fn diagnose(
    status: ExitStatus,
    log: &str,
    console: &str,
) -> (Diagnosis, Option<String>) {
    let (known, message) = failure_patterns::find(log, console);
    (known.unwrap_or_else(|| by_status(status)), message)
}

/// Returns the diagnosis of an exit status alone. Firecracker defines 148 to 157: `FcExitCode` in `src/vmm/src/lib.rs`.
fn by_status(status: ExitStatus) -> Diagnosis {
    match status {
        // SIGXFSZ: the jailer itself runs into `fsize` when it writes its pid file.
        ExitStatus::Signaled(25) | ExitStatus::Exited(151) => Diagnosis::ResourceLimit,
        ExitStatus::Signaled(31) | ExitStatus::Exited(148) => Diagnosis::Seccomp,
        ExitStatus::Signaled(9) => Diagnosis::Killed,
        ExitStatus::Exited(152) => Diagnosis::Config,
        ExitStatus::Exited(153) => Diagnosis::RefusedArgument,
        _ => Diagnosis::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: ExitStatus = ExitStatus::Exited(1);

    /// The output of official binaries, the decisive sentence, and the diagnosis.
    const PRINTED: &[(&str, &str, Diagnosis)] = &[
        (
            "Failed to parse arguments: Found argument 'bogus' which wasn't expected, or isn't valid in this context.\nError: ArgumentParsing(UnexpectedArgument(\"bogus\"))\n",
            "Found argument",
            Diagnosis::RefusedArgument,
        ),
        (
            "Arguments parsing error: The argument 'uid' was provided more than once. \n\nFor more information try --help.\n",
            "provided more than once",
            Diagnosis::RefusedArgument,
        ),
        (
            "Failed to parse arguments: The argument 'uid' was provided more than once.\n",
            "provided more than once",
            Diagnosis::RefusedArgument,
        ),
        (
            "\nthread 'main' (16032) panicked at src/jailer/src/main.rs:436:27:\nJailer error: Invalid instance ID: invalid char (_) at position 1\nnote: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n",
            "Invalid instance ID",
            Diagnosis::RefusedArgument,
        ),
        ("Invalid uid: x\nError: Uid(\"x\")", "Invalid uid", Diagnosis::RefusedArgument),
        ("Invalid gid: x\nError: Gid(\"x\")", "Invalid gid", Diagnosis::RefusedArgument),
        (
            "Invalid format for cgroups: a=b=c\nError: CgroupFormat(\"a=b=c\")",
            "a=b=c",
            Diagnosis::RefusedArgument,
        ),
        (
            "Invalid limit value for resource: no-file: invalid digit",
            "no-file",
            Diagnosis::RefusedArgument,
        ),
        (
            "Invalid resource argument: nproc\nError: ResLimitArgument(\"nproc\")",
            "nproc",
            Diagnosis::RefusedArgument,
        ),
        ("Cgroup invalid file: ../x.max", "../x.max", Diagnosis::RefusedArgument),
        ("3 is an invalid cgroup version specifier", "3 is", Diagnosis::RefusedArgument),
        (
            "Parent cgroup path is invalid. Path should not be absolute or contain '..' or '.'",
            "Path should not",
            Diagnosis::RefusedArgument,
        ),
        ("/srv is not a file\nError: NotAFile(\"/srv\")", "/srv is", Diagnosis::RefusedArgument),
        ("/srv/x is not a directory", "/srv/x is", Diagnosis::RefusedArgument),
        (
            "Failed to canonicalize path /nope: No such file or directory (os error 2)",
            "/nope",
            Diagnosis::RefusedArgument,
        ),
        (
            "thread 'main' panicked at 'Jailer error: Invalid filename. The filename of `--exec-file` option must contain \"firecracker\": vmm', src/jailer/src/main.rs:5:9",
            "must contain",
            Diagnosis::RefusedArgument,
        ),
        (
            "Failed to copy /opt/firecracker to /srv/jailer/firecracker/a/root/firecracker: Text file busy (os error 26)",
            "Text file busy",
            Diagnosis::StillRunning,
        ),
        (
            "Detected hard link at: /srv/jailer/firecracker/h/root/firecracker\nError: HardLink(\"/srv\")",
            "Detected",
            Diagnosis::LinkedExecCopy,
        ),
        (
            "Failed to open /srv/jailer/firecracker/h/root/firecracker: Too many levels of symbolic links (os error 40)",
            "symbolic",
            Diagnosis::LinkedExecCopy,
        ),
        (
            "Failed to join network namespace: netns: Invalid argument (os error 22)\nError: SetNetNs(Os { code: 22 })",
            "netns: Invalid",
            Diagnosis::NetworkNamespace,
        ),
        (
            "Failed to set limit for resource: RLIMIT_NOFILE",
            "RLIMIT_NOFILE",
            Diagnosis::ResourceLimit,
        ),
        (
            "Hierarchy not found: No hierarchy found for this controller.",
            "Hierarchy",
            Diagnosis::CgroupMissing,
        ),
        (
            "Controller nope is unavailable\nError: CgroupControllerUnavailable(\"nope\")",
            "nope",
            Diagnosis::CgroupMissing,
        ),
        ("pids configurations not found in /proc/mounts", "/proc/mounts", Diagnosis::CgroupMissing),
        (
            "Failed to move process to cgroup (/sys/fs/cgroup/a): Device or resource busy (os error 16).\nHint: If you intended to create a child cgroup under /sys/fs/cgroup/a, pass any --cgroup parameters.",
            "busy",
            Diagnosis::CgroupRefused,
        ),
        (
            "Failed to inherit cgroups configurations from file cpuset.cpus in path /sys/fs/cgroup/cpuset/a",
            "cpuset.cpus",
            Diagnosis::CgroupRefused,
        ),
        (
            "Failed to write to /sys/fs/cgroup/memory/firecracker/a4/memory.limit_in_bytes: Invalid argument (os error 22)",
            "limit_in_bytes",
            Diagnosis::CgroupRefused,
        ),
        (
            "Failed to write to cgroups file: Invalid argument",
            "cgroups file",
            Diagnosis::CgroupRefused,
        ),
        (
            "thread 'main' (24813) panicked at src/jailer/src/env.rs:520:34:\ncalled `Result::unwrap()` on an `Err` value: Write(\"/sys/fs/cgroup/memory/firecracker/a4/memory.limit_in_bytes\", Os { code: 22 })",
            "limit_in_bytes",
            Diagnosis::CgroupRefused,
        ),
        (
            "thread 'main' panicked at src/jailer/src/main.rs:436:27:\nJailer error: Failed to create /dev/net/tun\0 via mknod inside the jail: File exists (os error 17)",
            "Failed to create /dev/net/tun via",
            Diagnosis::NodeExists,
        ),
        (
            "Failed to create /dev/kvm via mknod inside the jail: Operation not permitted (os error 1)\nError: MknodDev(Os { code: 1 }, \"/dev/kvm\")",
            "not permitted",
            Diagnosis::NodeRefused,
        ),
        (
            "Failed to open file /firecracker.pid: File exists (os error 17)\nError: FileOpen(\"/firecracker.pid\", Os { code: 17 })\nFailed to exec into Firecracker: No such file or directory (os error 2)",
            ".pid",
            Diagnosis::PidFileExists,
        ),
        (
            "Failed to open file /run/netns/gone: No such file or directory (os error 2)",
            "/run/netns/gone",
            Diagnosis::NetworkNamespace,
        ),
        (
            "Failed to exec into Firecracker: Permission denied (os error 13)",
            "exec into",
            Diagnosis::Exec,
        ),
        (
            "2026-11-24T04:34:38.876201947 [a:main] RunWithApiError error: Failed to open the API socket at: /api.sock. Check that it is not already used.\n2026-11-24T04:34:38.876214726 [a:main] Firecracker exiting with error. exit_code=1\nError: RunWithApi(FailedToBindSocket(\"/api.sock\"))",
            "RunWithApiError error: Failed to open the API socket",
            Diagnosis::SocketExists,
        ),
        (
            "2026-11-24T04:34:38.878593843 [a:main] RunWithApiError error: Failed to bind and run the HTTP server: IO error: No such file or directory (os error 2)",
            "HTTP server",
            Diagnosis::SocketExists,
        ),
        (
            "2026-11-24T04:34:38.861021427 [a:main] Firecracker panicked at src/firecracker/src/main.rs:388:20:\nUnable to open or read from the configuration file: Os { code: 2 }",
            "Unable to open or read",
            Diagnosis::Config,
        ),
        (
            "2026-11-24T04:34:38.817786336 [a:main] RunWithoutApiError error: Failed to build MicroVM from Json: Configuration for VMM from one single json failed: Invalid JSON: unknown field `nope`, expected one of `vcpu_count`",
            "unknown field `nope`",
            Diagnosis::Config,
        ),
        (
            "2026-11-24T04:34:38.817786336 [a:main] Kvm error: Error creating KVM object: Permission denied (os error 13) Make sure the user launching the firecracker process is configured on the /dev/kvm file's ACL.",
            "Error creating KVM object",
            Diagnosis::Kvm,
        ),
        ("Error: StartMicroVM(KVM(Permission denied))", "KVM", Diagnosis::Kvm),
        ("cannot use /dev/kvm: No such device", "/dev/kvm", Diagnosis::Kvm),
        (
            "2026-11-24T04:34:38.790108026 [a:main] RunWithoutApiError error: Failed to build MicroVM from Json: Configuration for VMM from one single json failed: Boot source error: The kernel file cannot be opened: No such file or directory (os error 2)\nError: RunWithoutApiError(BuildMicroVMFromJson())",
            "The kernel file",
            Diagnosis::Kernel,
        ),
        (
            "2026-11-24T04:34:38.814514899 [a:main] RunWithoutApiError error: Failed to build MicroVM from Json: Could not Start MicroVM from one single json: System configuration error: Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Invalid Elf magic number",
            "Invalid Elf magic",
            Diagnosis::Kernel,
        ),
        ("The initrd file cannot be opened due to invalid path", "initrd", Diagnosis::Kernel),
        (
            "2026-11-24T04:34:38.820334224 [a:main] Configuration for VMM from one single json failed: Block device error: Unable to create the virtio block device: Virtio backend error: Error manipulating the backing file: No such file or directory (os error 2) /nope",
            "/nope",
            Diagnosis::Drive,
        ),
        ("Error manipulating the backing file: Permission denied", "Permission", Diagnosis::Drive),
        (
            "Cannot open the block device backing file. Permission denied",
            "Permission",
            Diagnosis::Drive,
        ),
        (
            "Cannot create network device. Open tap device failed: Resource busy",
            "Open tap",
            Diagnosis::Tap,
        ),
        (
            "Error while creating ifreq structure: Operation not permitted. Invalid TUN/TAP Backend provided by tap0.",
            "tap0",
            Diagnosis::Tap,
        ),
        ("Couldn't open /dev/net/tun: No such file or directory", "/dev/net/tun", Diagnosis::Tap),
        ("Network device error: Could not create the device", "Network", Diagnosis::Tap),
        ("Shutting down VM after intercepting a bad syscall (41).", "(41)", Diagnosis::Seccomp),
        (
            "2026-11-24T04:34:38.8201 [a:main] Seccomp error: no filter",
            "no filter",
            Diagnosis::Seccomp,
        ),
        (
            "Cannot mmap memory: Cannot allocate memory (os error 12)",
            "os error 12",
            Diagnosis::Memory,
        ),
        (
            "Cannot load kernel due to invalid memory configuration or invalid kernel image: Kernel Loader: failed to load ELF kernel image: Kernel Loader: Unable to read kernel image",
            "Unable to read",
            Diagnosis::GuestMemory,
        ),
        (
            "Configuration for VMM from one single json failed: VM config error: The memory size (MiB) is invalid.",
            "memory size",
            Diagnosis::Config,
        ),
        (
            "Failed to copy /a to /b: No space left on device (os error 28)",
            "/a to /b",
            Diagnosis::NoSpace,
        ),
        (
            "Failed to copy /a to /b: Disk quota exceeded (os error 122)",
            "/a to /b",
            Diagnosis::NoSpace,
        ),
        (
            "Failed to unshare into new mount namespace: Operation not permitted (os error 1)",
            "unshare",
            Diagnosis::Privilege,
        ),
    ];

    #[test]
    fn each_known_failure_is_found() {
        for (printed, tells, want) in PRINTED {
            for (log, console) in [("", *printed), (*printed, "")] {
                let (diagnosis, message) = diagnose(EXIT, log, console);
                let message = message.unwrap_or_default();
                assert_eq!(diagnosis, *want, "{printed}: {message:?}");
                assert!(message.contains(tells), "{tells}: {message:?}");
                assert!(
                    !message.contains('\n')
                        && !message.contains('\0')
                        && !message.contains("[a:main]"),
                    "{message:?}"
                );
                assert!(diagnosis.hint().is_some());
            }
        }
    }

    #[test]
    fn each_pattern_has_a_sample() {
        for (row, diagnosis) in failure_patterns::PATTERNS {
            let first = PRINTED.iter().any(|(printed, _, want)| {
                want == diagnosis && row.iter().all(|words| printed.contains(words))
            });
            assert!(first, "nothing printed has {row:?}");
        }
    }

    #[test]
    fn unknown_failures_are_quoted() {
        let diagnosed = |log, console| diagnose(EXIT, log, console);
        assert_eq!(
            diagnosed("Error: Something(New)\n", ""),
            (Diagnosis::Unknown, Some("Error: Something(New)".to_owned()))
        );
        assert_eq!(
            diagnosed("something failed\nthe end\n", "").1.as_deref(),
            Some("something failed")
        );
        assert_eq!(diagnosed("goodbye\n", "a guest speaks\n").1.as_deref(), Some("goodbye"));
        assert_eq!(diagnosed("", "a guest speaks\n"), (Diagnosis::Unknown, None));
        let calm = "2026-11-24T04:34:38.876201947 [a:main] Killing vCPU threads\n";
        assert_eq!(diagnosed(calm, ""), (Diagnosis::Unknown, None));
    }

    #[test]
    fn the_console_is_a_last_resort() {
        let kernel = "The kernel file cannot be opened";
        let guest = "Text file busy\nerror: a guest's own\n";
        assert_eq!(diagnose(EXIT, kernel, guest).0, Diagnosis::Kernel);
        assert_eq!(diagnose(EXIT, "an error\n", "error: a guest's own\n").1.unwrap(), "an error");
        assert_eq!(diagnose(EXIT, "Error: New(1)\n", guest).0, Diagnosis::StillRunning);
    }

    #[test]
    fn row_47_messages_are_cut() {
        let long = format!("error: \x1b[31m{}\n", "ä".repeat(1 << 16));
        let message = diagnose(EXIT, &long, "").1.unwrap();
        assert!(message.len() <= 520 && !message.contains('\x1b'), "{message:?}");
    }

    #[test]
    fn statuses_have_meanings() {
        for (status, want) in [
            (ExitStatus::Signaled(25), Diagnosis::ResourceLimit),
            (ExitStatus::Exited(151), Diagnosis::ResourceLimit),
            (ExitStatus::Exited(148), Diagnosis::Seccomp),
            (ExitStatus::Signaled(31), Diagnosis::Seccomp),
            (ExitStatus::Signaled(9), Diagnosis::Killed),
            (ExitStatus::Exited(152), Diagnosis::Config),
            (ExitStatus::Exited(153), Diagnosis::RefusedArgument),
            (ExitStatus::Exited(9), Diagnosis::Unknown),
            (ExitStatus::Unknown, Diagnosis::Unknown),
        ] {
            assert_eq!(diagnose(status, "", "").0, want, "{status}");
        }
        assert!(Diagnosis::Unknown.hint().is_none());
    }
}

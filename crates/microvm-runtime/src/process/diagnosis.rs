//! What the jailer's and Firecracker's last words mean.

use super::status::ExitStatus;

/// Why a VMM ended before it was ready, where its last words are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Diagnosis {
    /// Its words are not known.
    Unknown,
    /// The jailer refused an argument.
    RefusedArgument,
    /// A device node it wants to make was there already.
    NodeExists,
    /// A device node could not be made.
    NodeRefused,
    /// The pid file of an earlier run was there.
    PidFileExists,
    /// The exec copy is being executed: a VM of this id runs.
    StillRunning,
    /// A link was in the exec copy's place.
    LinkedExecCopy,
    /// The network namespace could not be joined.
    NetworkNamespace,
    /// The hierarchy or controller it was told to use is not there.
    CgroupMissing,
    /// A control group file could not be written or joined.
    CgroupRefused,
    /// A resource limit ended it.
    ResourceLimit,
    /// The exec file could not be executed in the jail.
    Exec,
    /// The API socket of an earlier run was there.
    SocketExists,
    /// `/dev/kvm` could not be used.
    Kvm,
    /// The configuration file was refused.
    Config,
    /// The kernel image or a drive could not be used.
    Image,
    /// The tap device could not be used.
    Tap,
    /// A system call its seccomp filter does not know.
    Seccomp,
    /// A file system is full.
    NoSpace,
}

/// Words, and what they mean; the first match counts. Sources: `src/jailer/src/main.rs` and `src/firecracker/src` of
/// releases 1.0 to 1.16.
const WORDS: &[(&str, Diagnosis)] = &[
    ("No space left on device", Diagnosis::NoSpace),
    ("Text file busy", Diagnosis::StillRunning),
    ("Detected hard link", Diagnosis::LinkedExecCopy),
    ("Detected symbolic link", Diagnosis::LinkedExecCopy),
    ("Failed to join network namespace", Diagnosis::NetworkNamespace),
    ("Hierarchy not found", Diagnosis::CgroupMissing),
    ("is unavailable", Diagnosis::CgroupMissing),
    ("Failed to move process to cgroup", Diagnosis::CgroupRefused),
    ("Failed to inherit cgroups", Diagnosis::CgroupRefused),
    ("/sys/fs/cgroup", Diagnosis::CgroupRefused),
    ("Failed to set limit for resource", Diagnosis::ResourceLimit),
    ("Failed to exec into Firecracker", Diagnosis::Exec),
    ("Failed to parse arguments", Diagnosis::RefusedArgument),
    ("wasn't expected", Diagnosis::RefusedArgument),
    ("Invalid instance ID", Diagnosis::RefusedArgument),
    ("Invalid format for", Diagnosis::RefusedArgument),
    ("Invalid limit value", Diagnosis::RefusedArgument),
    ("Invalid resource argument", Diagnosis::RefusedArgument),
    ("Invalid uid", Diagnosis::RefusedArgument),
    ("Invalid gid", Diagnosis::RefusedArgument),
    ("Cgroup invalid file", Diagnosis::RefusedArgument),
    ("invalid cgroup version", Diagnosis::RefusedArgument),
    ("Parent cgroup path is invalid", Diagnosis::RefusedArgument),
    ("is not a file", Diagnosis::RefusedArgument),
    ("Failed to canonicalize", Diagnosis::RefusedArgument),
    ("/dev/kvm", Diagnosis::Kvm),
    ("KVM", Diagnosis::Kvm),
    ("seccomp", Diagnosis::Seccomp),
    ("bad syscall", Diagnosis::Seccomp),
    ("kernel image", Diagnosis::Image),
    ("Kernel", Diagnosis::Image),
    ("kernel", Diagnosis::Image),
    ("Block", Diagnosis::Image),
    ("block device", Diagnosis::Image),
    ("Tap", Diagnosis::Tap),
    ("TUN", Diagnosis::Tap),
    ("tap", Diagnosis::Tap),
    ("onfiguration", Diagnosis::Config),
    ("from the configuration", Diagnosis::Config),
    ("json", Diagnosis::Config),
    ("JSON", Diagnosis::Config),
    ("Address in use", Diagnosis::SocketExists),
    ("api.sock", Diagnosis::SocketExists),
];

/// What they mean, and the line that says so.
pub(super) fn diagnose(
    status: ExitStatus,
    stdout: &str,
    stderr: &str,
) -> (Diagnosis, Option<String>) {
    let message = message(stdout, stderr);
    let Some(text) = &message else {
        return (by_status(status), None);
    };
    let exists = text.contains("File exists");
    let diagnosis = if text.contains("via mknod") {
        if exists { Diagnosis::NodeExists } else { Diagnosis::NodeRefused }
    } else if exists && text.contains(".pid") {
        Diagnosis::PidFileExists
    } else {
        let known = WORDS.iter().find(|(words, _)| text.contains(words));
        known.map_or_else(|| by_status(status), |(_, diagnosis)| *diagnosis)
    };
    (diagnosis, message)
}

fn by_status(status: ExitStatus) -> Diagnosis {
    match status {
        // SIGXFSZ: the jailer itself runs into `fsize` when it writes its pid file.
        ExitStatus::Signaled(25) => Diagnosis::ResourceLimit,
        ExitStatus::Exited(148) | ExitStatus::Signaled(31) => Diagnosis::Seccomp,
        _ => Diagnosis::Unknown,
    }
}

/// The line that tells why, of either tail.
pub(super) fn message(stdout: &str, stderr: &str) -> Option<String> {
    line(stderr).or_else(|| line(stdout))
}

/// The line that tells why: releases from 1.13 on print `Error: …`, older ones panic; Firecracker logs it.
fn line(tail: &str) -> Option<String> {
    let told = |line: &&str| {
        !line.is_empty()
            && !line.starts_with("note: ")
            && !line.starts_with("stack backtrace")
            && !line.contains("Running Firecracker")
            && !line.contains("exiting with")
            && !line.contains("exit_code=")
    };
    let lines = || tail.lines().map(str::trim).filter(told);
    let marked = lines().rfind(|line| line.contains("rror") || line.contains("panicked"));
    let line = marked.or_else(|| lines().next_back())?;
    // From 1.13 on the jailer tells it in words, and again in its own terms: `Error: MknodDev(…)`.
    let in_words =
        lines().take_while(|other| *other != line).last().filter(|_| line.starts_with("Error: "));
    let line = in_words.unwrap_or(line);
    // An old panic has its text in quotes, on the line that says where: `panicked at 'Error: …', src/…`.
    let quoted = line
        .split_once("panicked at '")
        .and_then(|(_, rest)| rest.rsplit_once("', "))
        .map(|(text, _)| text);
    Some(quoted.unwrap_or(line).to_owned())
}

impl Diagnosis {
    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> Option<&'static str> {
        Some(match self {
            Self::Unknown => return None,
            Self::RefusedArgument => {
                "the jailer refused its arguments: is its release one that this crate knows?"
            }
            Self::NodeExists => {
                "leave /dev to the jailer: it starts in no jail that has its device nodes"
            }
            Self::NodeRefused => {
                "run as root with CAP_MKNOD, on a filesystem that is not mounted nodev"
            }
            Self::PidFileExists => "prepare the jail anew: it has the pid file of an earlier run",
            Self::StillRunning => "a VM of this id still runs: shut it down first",
            Self::LinkedExecCopy => {
                "prepare the jail anew: a link is where the exec file is copied to"
            }
            Self::NetworkNamespace => "is the network namespace still there? `ip netns list`",
            Self::CgroupMissing => {
                "this host does not have that hierarchy or controller: ask for the other version of control groups"
            }
            Self::CgroupRefused => {
                "the control group took neither the value nor the process: has its parent processes of its own?"
            }
            Self::ResourceLimit => "raise the resource limit: the jailer itself runs under it",
            Self::Exec => {
                "the exec file must be a static executable, on a filesystem that is not mounted noexec"
            }
            Self::SocketExists => "prepare the jail anew: it has the API socket of an earlier run",
            Self::Kvm => "does the host have /dev/kvm, and is the chroot base not mounted nodev?",
            Self::Config => {
                "Firecracker refused the VM's configuration: does its release know every field?"
            }
            Self::Image => {
                "is the kernel an uncompressed ELF vmlinux, and each drive what its name says?"
            }
            Self::Tap => {
                "does the tap device exist in the VM's network namespace, free and owned by its uid?"
            }
            Self::Seccomp => {
                "Firecracker made a system call its seccomp filter forbids: use an official static build"
            }
            Self::NoSpace => "free space on the filesystem of the chroot base",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXIT: ExitStatus = ExitStatus::Exited(1);

    #[track_caller]
    fn means(stderr: &str, want: Diagnosis) {
        let (diagnosis, message) = diagnose(EXIT, "", stderr);
        assert_eq!(diagnosis, want, "{message:?}");
        assert!(diagnosis.hint().is_some());
    }

    #[test]
    fn the_jailers_words_in_one_line() {
        for (words, want) in [
            (
                "Error: Failed to create /dev/net/tun via mknod inside the jail: File exists (os error 17)",
                Diagnosis::NodeExists,
            ),
            (
                "Error: Failed to create /dev/kvm via mknod inside the jail: Operation not permitted (os error 1)",
                Diagnosis::NodeRefused,
            ),
            (
                "Error: Failed to open file /firecracker.pid: File exists (os error 17)",
                Diagnosis::PidFileExists,
            ),
            (
                "Error: Failed to copy /opt/firecracker to /srv/jailer/firecracker/a/root/firecracker: Text file busy (os error 26)",
                Diagnosis::StillRunning,
            ),
            (
                "Error: Detected hard link at: /srv/jailer/firecracker/a/root/firecracker",
                Diagnosis::LinkedExecCopy,
            ),
            ("Error: Hierarchy not found: cgroups v1", Diagnosis::CgroupMissing),
            ("Error: Controller pids is unavailable", Diagnosis::CgroupMissing),
            (
                "Error: Invalid instance ID: Invalid char (_) at position 1",
                Diagnosis::RefusedArgument,
            ),
            (
                "Error: Failed to exec into Firecracker: Permission denied (os error 13)",
                Diagnosis::Exec,
            ),
            (
                "Error: Failed to join network namespace: netns: Invalid argument (os error 22)",
                Diagnosis::NetworkNamespace,
            ),
        ] {
            means(words, want);
        }
    }

    #[test]
    fn the_same_words_in_a_panic_of_an_old_release() {
        let old = "thread 'main' panicked at 'Jailer error: Invalid instance ID: Invalid char (_) at position 1', \
                   src/jailer/src/main.rs:5:9\nnote: run with `RUST_BACKTRACE=1`";
        let (diagnosis, message) = diagnose(ExitStatus::Signaled(6), "", old);
        assert_eq!(diagnosis, Diagnosis::RefusedArgument);
        assert_eq!(
            message.as_deref(),
            Some("Jailer error: Invalid instance ID: Invalid char (_) at position 1")
        );
    }

    #[test]
    fn a_status_alone_means_something_too() {
        assert_eq!(diagnose(ExitStatus::Signaled(25), "", "").0, Diagnosis::ResourceLimit);
        assert_eq!(diagnose(ExitStatus::Exited(148), "", "").0, Diagnosis::Seccomp);
        assert_eq!(diagnose(ExitStatus::Exited(9), "", "").0, Diagnosis::Unknown);
        assert_eq!(diagnose(EXIT, "", "Error: something new").0, Diagnosis::Unknown);
    }
}

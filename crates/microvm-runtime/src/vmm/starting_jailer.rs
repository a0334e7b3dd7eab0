//! Finds a started jailer that has not entered the jail's root yet. Without a separate control group, only the jailer's
//! arguments name the jail. A killed launcher may have left no record of the jailer.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use jail_cmd::{JailerVersion, RawInvocation};
use jail_fs::InodeId;

use super::procfs;
use crate::sys;

/// Returns true if the process is the jailer `jailer` with arguments for the jail `<base>/<exec name>/<id>`.
///
/// A process can fake the arguments, so the process must run as root or as the launcher's uid, and execute the jailer's
/// inode.
pub(crate) fn is_starting_jailer(pid: u32, jailer: InodeId, jail: &Path) -> bool {
    let us = sys::process::effective_uid();
    procfs::effective_uid(pid) == Some(us)
        && procfs::held(pid, "exe").is_ok_and(|exe| InodeId::of(exe).is_ok_and(|exe| exe == jailer))
        && arguments(pid).is_some_and(|arguments| leads_to(&arguments, jail))
        && procfs::bytes(pid, "status").is_ok_and(|status| procfs::field(&status, "Uid") == [us; 4])
}

/// Returns true if the process runs with the launcher's uid and has the arguments of a jailer.
pub(crate) fn may_be_jailer(pid: u32) -> bool {
    procfs::effective_uid(pid) == Some(sys::process::effective_uid())
        && arguments(pid).is_some_and(|arguments| {
            matches!(
                RawInvocation::parse(&arguments, JailerVersion::NEWEST),
                Ok(RawInvocation::Run(_))
            )
        })
}

/// A command line that was cut short leads to no jail: no release of the jailer takes one that long.
fn arguments(pid: u32) -> Option<Vec<OsString>> {
    words(&procfs::bytes(pid, "cmdline").ok()?)
}

/// The words of a command line after the program; `None` for a line that does not end.
pub(super) fn words(line: &[u8]) -> Option<Vec<OsString>> {
    let line = line.strip_suffix(b"\0")?;
    let words = line.split(|byte| *byte == 0).skip(1);
    Some(words.map(|word| OsStr::from_bytes(word).to_owned()).collect())
}

pub(super) fn leads_to(arguments: &[OsString], jail: &Path) -> bool {
    let Ok(RawInvocation::Run(given)) = RawInvocation::parse(arguments, JailerVersion::NEWEST)
    else {
        return false;
    };
    let (Some(base), Some(exec_name)) =
        (given.chroot_base_dir, Path::new(&given.exec_file).file_name())
    else {
        return false;
    };
    Path::new(&base).join(exec_name).join(given.id) == jail
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn jailers_are_known_by_destination() {
        let jail = Path::new("/base/firecracker/vm-1");
        let line = |line: &str| line.split(' ').map(OsString::from).collect::<Vec<_>>();
        let args = "--id vm-1 --exec-file /usr/bin/firecracker --uid 1 --gid 1 --chroot-base-dir";
        assert!(leads_to(&line(&format!("{args} /base -- --no-api")), jail));
        assert!(leads_to(&line(&format!("{args} /base/")), jail));
        for other in [
            format!("{args} /other"),
            format!("{args} /base --id vm-2"),
            args.replace(" --chroot-base-dir", ""),
            format!("{args} /base --version"),
            format!("sudo jailer {args} /base"),
            "-- --id vm-1 --chroot-base-dir /base".to_owned(),
        ] {
            assert!(!leads_to(&line(&other), jail), "{other}");
        }
        assert!(!leads_to(&line(&format!("{args} /base")), Path::new("/base/other/vm-1")));
    }

    #[test]
    fn row_57_arguments_alone_make_no_jailer() {
        let jail = Path::new("/nowhere/firecracker/on-its-way");
        let args = "--id on-its-way --exec-file /x/firecracker --uid 1 --gid 1 --chroot-base-dir";
        // A program that takes any arguments, and waits: for room in a pipe.
        let (reader, mut full) = sys::pipe().unwrap();
        full.write_all(&[0; 64 << 10]).unwrap();
        let mut jailer = Command::new("/bin/echo")
            .args(args.split(' ').chain(["/nowhere"]))
            .stdout(full)
            .spawn()
            .unwrap();
        // A spawn returns when the exec can no longer fail, and the kernel sets the arguments after that.
        while arguments(jailer.id()).is_none_or(|arguments| arguments.is_empty()) {
            std::thread::yield_now();
        }
        let inode = |path: &str| {
            let path = sys::file::open_path(path);
            InodeId::of(path.unwrap()).unwrap()
        };
        let echo = inode("/bin/echo");
        assert!(is_starting_jailer(jailer.id(), echo, jail));
        assert!(!is_starting_jailer(jailer.id(), inode("/bin/true"), jail), "another program");
        let other = Path::new("/nowhere/firecracker/other");
        assert!(!is_starting_jailer(jailer.id(), echo, other), "another jail");
        drop(reader);
        jailer.wait().unwrap();
        assert!(!is_starting_jailer(jailer.id(), echo, jail));
    }
}

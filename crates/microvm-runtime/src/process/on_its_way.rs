//! The jailer on its way into a jail: from its start until it is in the jail's root, or in the VM's control group, only
//! its arguments tell where it goes. The launcher that started it may have been killed before it could record it.

use std::ffi::OsString;
use std::io;
use std::path::Path;

use jail_cmd::{JailerVersion, RawInvocation};

use super::procfs;
use crate::error::{ErrorKind, Failure, Result};

/// Every jailer that is on its way into this jail, `<base>/<exec name>/<id>`.
pub(crate) fn on_the_way(jail: &Path) -> Result<Vec<u32>> {
    let pids = procfs::numbers("/proc").map_err(|error: io::Error| {
        Failure::new(ErrorKind::Identity, "list the processes").path("/proc").source_of(error)
    })?;
    Ok(pids.into_iter().filter(|pid| is_on_its_way(*pid, jail)).collect())
}

/// Whether this process is one. Its arguments are its own word, so it is believed only where it is root's, or whose the
/// launcher is: nobody else has another process killed for him.
pub(crate) fn is_on_its_way(pid: u32, jail: &Path) -> bool {
    arguments(pid).is_some_and(|arguments| leads_to(&arguments, jail)) && is_the_launchers(pid)
}

fn arguments(pid: u32) -> Option<Vec<OsString>> {
    let line = procfs::text(pid, "cmdline").ok()?;
    Some(line.split_terminator('\0').skip(1).map(OsString::from).collect())
}

fn leads_to(arguments: &[OsString], jail: &Path) -> bool {
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

fn is_the_launchers(pid: u32) -> bool {
    let us = rustix::process::geteuid().as_raw();
    procfs::text(pid, "status").is_ok_and(|status| procfs::field(&status, "Uid") == [us; 4])
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::process::Command;

    use super::*;

    #[test]
    fn a_jailer_is_known_by_where_it_goes() {
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
    fn it_is_found_among_all_processes() {
        let jail = Path::new("/nowhere/firecracker/on-its-way");
        let args = "--id on-its-way --exec-file /x/firecracker --uid 1 --gid 1 --chroot-base-dir";
        // A program that takes any arguments, and waits: for room in a pipe.
        let (reader, mut full) = io::pipe().unwrap();
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
        assert!(is_on_its_way(jailer.id(), jail));
        assert_eq!(on_the_way(jail).unwrap(), [jailer.id()]);
        assert_eq!(on_the_way(Path::new("/nowhere/firecracker/other")).unwrap(), [0; 0]);
        drop(reader);
        jailer.wait().unwrap();
        assert!(!is_on_its_way(jailer.id(), jail));
    }
}

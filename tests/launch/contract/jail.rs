//! The jail: where it is, what it holds, and what may not be there.

use std::fs;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::mount::MsFlags;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use testkit::{Tmpfs, skip};

use super::rig::{GID, Rig, UID, is_dynamic};

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn jail_has_canonical_exec_name() {
    for rig in Rig::each() {
        let mut launch = rig.launch();
        fs::copy(rig.binaries.stub(), rig.scratch.join("anything-v9")).unwrap();
        symlink("anything-v9", rig.scratch.join("fc")).unwrap();
        symlink(&launch.base, rig.scratch.join("base-link")).unwrap();
        let base = std::mem::replace(&mut launch.base, rig.scratch.join("base-link"));
        launch.exec_file = rig.scratch.join("fc");
        launch.run().assert_started(&rig.name);
        assert!(base.join("anything-v9/vm-1/root/anything-v9").is_file(), "{}", rig.name);
        assert_eq!(fs::read_dir(&base).unwrap().count(), 1, "{}", rig.name);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn what_a_jail_holds() {
    let misc = fs::read_to_string("/proc/misc").unwrap_or_default();
    let userfaultfd = misc.lines().find_map(|line| line.strip_suffix(" userfaultfd")?.parse().ok());
    for rig in Rig::each() {
        let launch = rig.launch();
        launch.run().assert_started(&rig.name);
        let root = launch.root();
        let entry = |path: &str| fs::symlink_metadata(root.join(path)).unwrap();
        for dir in ["", "dev", "dev/net", "run"] {
            let dir = entry(dir);
            assert_eq!((dir.mode(), dir.uid(), dir.gid()), (0o40_700, UID, GID), "{}", rig.name);
        }
        let mut nodes = vec![("dev/kvm", 10, 232), ("dev/net/tun", 10, 200), ("dev/urandom", 1, 9)];
        nodes.extend(userfaultfd.map(|minor| ("dev/userfaultfd", 10, minor)));
        for (path, major, minor) in &nodes {
            let node = entry(path);
            assert!(node.file_type().is_char_device(), "{}: {path}", rig.name);
            assert_eq!(
                (node.mode() & 0o7777, node.uid(), node.gid()),
                (0o600, UID, GID),
                "{}: {path}",
                rig.name
            );
            assert_eq!(node.rdev(), makedev(*major, *minor), "{}: {path}", rig.name);
        }
        let copy = entry("firecracker");
        assert_eq!((copy.uid(), copy.gid(), copy.nlink()), (UID, GID, 1), "{}", rig.name);
        assert_eq!(
            fs::read(root.join("firecracker")).unwrap(),
            fs::read(&launch.exec_file).unwrap()
        );
        // Root's own, in a directory that is not: it can be replaced.
        assert_eq!(entry("firecracker.pid").uid(), 0, "{}", rig.name);
        let pid = fs::read_to_string(root.join("firecracker.pid")).unwrap();
        assert!(pid.parse::<u32>().is_ok(), "{}: {pid:?}", rig.name);
        let count = |dir: &str| fs::read_dir(root.join(dir)).unwrap().count();
        assert_eq!((count(""), count("dev"), count("run")), (4, nodes.len(), 0), "{}", rig.name);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn an_existing_node_is_fatal() {
    for rig in Rig::each() {
        for (dir, node, major, minor) in [("dev", "kvm", 10, 232), ("dev/net", "tun", 10, 200)] {
            let launch = rig.launch();
            let path = launch.stage(dir).join(node);
            mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(major, minor))
                .unwrap();
            let message = format!(
                "Failed to create /{dir}/{node} via mknod inside the jail: File exists (os error 17)"
            );
            launch.run().assert_refused((&rig.name, node), &message);
        }
        // The one that is only warned of.
        let launch = rig.launch();
        let path = launch.stage("dev").join("urandom");
        mknod(&path, SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 9)).unwrap();
        let outcome = launch.run();
        outcome.assert_started(&rig.name);
        assert!(
            outcome.stdout.contains("Warning! Could not create /dev/urandom device inside jailer"),
            "{outcome:?}"
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn leftovers_of_a_run_are_fatal() {
    for rig in Rig::each() {
        let launch = rig.launch();
        launch.run().assert_started(&rig.name);
        fs::remove_dir_all(launch.root().join("dev")).unwrap();
        launch.run().assert_refused(
            &rig.name,
            "Failed to open file /firecracker.pid: File exists (os error 17)",
        );

        let launch = rig.launch();
        launch.stage("old_root");
        let message = "Failed to create the jail root directory before pivoting root: File exists (os error 17)";
        launch.run().assert_refused(&rig.name, message);

        // The third one Firecracker finds.
        let mut launch = rig.launch().stub(&["--api-sock", "/api.sock"]);
        launch.exec_file = rig.binaries.firecracker().to_owned();
        drop(UnixListener::bind(launch.stage("").join("api.sock")).unwrap());
        let outcome = launch.run();
        assert_eq!(outcome.code, Some(1), "{}: {outcome:?}", rig.name);
        assert!(
            outcome.stdout.contains("Failed to open the API socket at: /api.sock."),
            "{}: {outcome:?}",
            rig.name
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn running_exec_copy_is_busy() {
    for rig in Rig::each() {
        let launch = rig.launch();
        let child = launch.hold();
        launch.run().assert_refused(&rig.name, "Text file busy (os error 26)");
        drop(child);
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn nodev_and_noexec_are_fatal() {
    for rig in Rig::each() {
        for (flags, opens) in [(MsFlags::empty(), true), (MsFlags::MS_NODEV, false)] {
            let launch = rig.launch().stub(&["--open", "/dev/urandom"]);
            let _tmpfs = Tmpfs::mount_with(&launch.base, "size=64m,mode=0755", flags);
            let outcome = launch.run();
            outcome.assert_started(&rig.name);
            let said = if opens {
                "/dev/urandom opens"
            } else {
                "/dev/urandom does not open: Permission denied"
            };
            assert!(outcome.stdout.contains(said), "{}: {flags:?}: {outcome:?}", rig.name);
        }
        let launch = rig.launch();
        let _tmpfs = Tmpfs::mount_with(&launch.base, "size=64m,mode=0755", MsFlags::MS_NOEXEC);
        launch.run().assert_refused(
            &rig.name,
            "Failed to exec into Firecracker: Permission denied (os error 13)",
        );
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn dynamic_exec_files_fail() {
    let Some(dynamic) = ["/bin/sh", "/bin/ls"].iter().map(Path::new).find(|file| is_dynamic(file))
    else {
        return skip(
            "dynamic_exec_files_fail",
            "this machine has no dynamic program at /bin/sh or /bin/ls",
        );
    };
    for rig in Rig::each() {
        let mut launch = rig.launch();
        launch.exec_file = rig.scratch.join("firecracker-dynamic");
        fs::copy(dynamic, &launch.exec_file).unwrap();
        launch.run().assert_refused(
            &rig.name,
            "Failed to exec into Firecracker: No such file or directory (os error 2)",
        );
    }
}

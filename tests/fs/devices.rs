//! Device nodes, block devices and persistent disks: what a jail shares with the host by design.

use std::fs::{self, File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown};

use jail_fs::{
    Access, Artifact, Ensured, ErrorKind, Owner, Strategy, block_device, ensure_char_device,
    persistent,
};
use testkit::{FsKind, LoopDevice, Tmpfs};

use crate::support::{
    Scene, as_jail_user, jail_user, list, loop_device, name, on, on_each_fs, owner_and_mode, plain,
};
use crate::sys::Child;

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn nodes_are_made_or_accepted() {
    on_each_fs("nodes_are_made_or_accepted", |scene| {
        let jail = scene.jail("one");
        let owner = jail_user();
        let ensure = |node: &str, major, minor| {
            ensure_char_device(&jail.dir, &name(node), major, minor, owner, 0o600)
        };
        for (node, major, minor, rdev) in
            [("kvm", 10, 232, 0xae8), ("tun", 10, 200, 0xac8), ("null", 1, 3, 0x103)]
        {
            assert_eq!(ensure(node, major, minor).unwrap(), Ensured::Made);
            let meta = fs::symlink_metadata(jail.path.join(node)).unwrap();
            assert!(meta.file_type().is_char_device());
            assert_eq!(meta.rdev(), rdev);
            assert_eq!(owner_and_mode(&jail.path.join(node)), (owner.uid(), owner.gid(), 0o600));
            assert_eq!(ensure(node, major, minor).unwrap(), Ensured::Found);
        }
        let null = jail.path.join("null");
        assert!(as_jail_user(|| File::options()
            .write(true)
            .open(&null)
            .unwrap()
            .write_all(b"x")
            .is_ok()));
        // One that is there keeps its owner and mode.
        chown(&null, Some(7), Some(7)).unwrap();
        fs::set_permissions(&null, Permissions::from_mode(0o640)).unwrap();
        assert_eq!(ensure("null", 1, 3).unwrap(), Ensured::Found);
        assert_eq!(owner_and_mode(&null), (7, 7, 0o640));
        // Anything else is refused and kept.
        let error = ensure("null", 1, 5).unwrap_err();
        assert!(error.to_string().contains("1:3, not 1:5"), "{error}");
        fs::write(jail.path.join("file"), "x").unwrap();
        fs::create_dir(jail.path.join("dir")).unwrap();
        for taken in ["file", "dir"] {
            let error = ensure(taken, 1, 3).unwrap_err();
            assert_eq!(
                (error.kind(), error.path()),
                (ErrorKind::Untrusted, jail.path.join(taken).as_path())
            );
        }
        // Without the privilege the error says which.
        let base = scene.dir("own");
        chown(&base, Some(owner.uid()), Some(owner.gid())).unwrap();
        assert!(as_jail_user(|| {
            let dir = jail_fs::TrustedDir::open(&base).unwrap();
            let error =
                ensure_char_device(dir.dir(), &name("kvm"), 10, 232, owner, 0o600).unwrap_err();
            error.kind() == ErrorKind::Privilege && error.to_string().contains("CAP_MKNOD")
        }));
    });
}

/// The loser of the race finds the right node.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn lost_creation_race_succeeds() {
    on_each_fs("lost_creation_race_succeeds", |scene| {
        let jail = scene.jail("one");
        for _ in 0..200 {
            let made = std::thread::scope(|scope| {
                let make =
                    || ensure_char_device(&jail.dir, &name("kvm"), 10, 232, jail_user(), 0o600);
                let racers: Vec<_> = (0..4).map(|_| scope.spawn(make)).collect();
                racers
                    .into_iter()
                    .filter(|_| true)
                    .map(|racer| racer.join().unwrap().unwrap())
                    .collect::<Vec<_>>()
            });
            assert_eq!(made.iter().filter(|made| **made == Ensured::Made).count(), 1);
            assert_eq!(owner_and_mode(&jail.path.join("kvm")).0, jail_user().uid());
            fs::remove_file(jail.path.join("kvm")).unwrap();
        }
    });
}

fn real_device(scene: &Scene) -> LoopDevice {
    let backing = scene.dir("images").join("backing");
    fs::write(&backing, vec![3; 1 << 20]).unwrap();
    loop_device(&backing)
}

/// A real block device, staged as a node of the same numbers.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_17_block_device_node() {
    on_each_fs("row_17_block_device_node", |scene| {
        let device = real_device(scene);
        let before = owner_and_mode(device.path());
        let source = Artifact::open(device.path()).unwrap();
        assert!(source.device().is_some());
        let jail = scene.jail("one");
        let owner = jail_user();
        let receipt =
            block_device(&source, &jail.dir, &name("rw"), owner, Access::ReadWrite).unwrap();
        assert_eq!((receipt.strategy, receipt.bytes_copied), (Strategy::DeviceNode, 0));
        block_device(&source, &jail.dir, &name("ro"), owner, Access::ReadOnly).unwrap();
        for node in ["rw", "ro"] {
            let meta = fs::symlink_metadata(jail.path.join(node)).unwrap();
            assert!(meta.file_type().is_block_device());
            assert_eq!(meta.rdev(), device.rdev());
        }
        assert_eq!(owner_and_mode(&jail.path.join("rw")), (owner.uid(), owner.gid(), 0o600));
        assert_eq!(owner_and_mode(&jail.path.join("ro")), (0, owner.gid(), 0o440));
        assert_eq!(owner_and_mode(device.path()), before);
        let (rw, ro) = (jail.path.join("rw"), jail.path.join("ro"));
        assert!(as_jail_user(|| {
            let mut byte = [0];
            File::open(&ro).unwrap().read_exact(&mut byte).unwrap();
            byte == [3]
                && File::options().write(true).open(&ro).is_err()
                && fs::set_permissions(&ro, Permissions::from_mode(0o666)).is_err()
                && File::options().write(true).open(&rw).unwrap().write_all(b"through").is_ok()
        }));
        let mut head = [0; 7];
        File::open(device.path()).unwrap().read_exact(&mut head).unwrap();
        assert_eq!(&head, b"through");
        // Its content is no file's.
        let error =
            jail_fs::private(&source, &jail.dir, &name("copy"), owner, &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert_eq!(list(&jail.path), ["ro", "rw"]);
        let file = scene.source("file", "x");
        let error =
            block_device(&file, &jail.dir, &name("file"), owner, Access::ReadWrite).unwrap_err();
        assert!(error.to_string().contains("a regular file"));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn persistent_disk_is_the_file() {
    on_each_fs("persistent_disk_is_the_file", |scene| {
        let disk = scene.source("disk", "data");
        let path = disk.path().to_owned();
        let jail = scene.jail("one");
        let owner = jail_user();
        let receipt = persistent(&disk, &jail.dir, &name("disk"), Some(owner), &plain()).unwrap();
        assert_eq!(
            (receipt.strategy, receipt.inode),
            (Strategy::PersistentLink, disk.stamp().inode)
        );
        let staged = jail.path.join("disk");
        assert!(as_jail_user(|| fs::write(&staged, "written through").is_ok()));
        assert_eq!(fs::read_to_string(&path).unwrap(), "written through");
        // No second user, here or elsewhere, whoever has died since.
        let other = scene.jail("two");
        let again = Artifact::open(&path).unwrap();
        let busy = |artifact: &Artifact| {
            persistent(artifact, &other.dir, &name("disk"), None, &plain()).unwrap_err().kind()
        };
        assert_eq!(busy(&again), ErrorKind::Busy);
        assert!(
            Child::spawn(Owner::ROOT, || busy(&Artifact::open(&path).unwrap()) == ErrorKind::Busy)
                .succeeded()
        );
        drop(disk);
        let error =
            persistent(&again, &other.dir, &name("disk"), Some(owner), &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Busy);
        assert!(error.to_string().contains("another tree may have it"), "{error}");
        // Stopped, taken out of the old jail, and started anew: it is the user's already.
        jail_fs::scrub(&jail.dir, &[name("disk")]).unwrap();
        persistent(&again, &other.dir, &name("disk"), Some(owner), &plain()).unwrap();
        jail_fs::scrub(&other.dir, &[name("disk")]).unwrap();
        // But no one else's: that would give away what the first may still have open.
        let third = scene.jail("three");
        let someone = Owner::new(61_235, 61_235).unwrap();
        let error =
            persistent(&again, &third.dir, &name("disk"), Some(someone), &plain()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert_eq!(list(&third.path), [""; 0]);
        assert_eq!(owner_and_mode(&path), (owner.uid(), owner.gid(), 0o644));
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refuses_unsafe_persistent_disks() {
    on("refuses_unsafe_persistent_disks", FsKind::Ext4, |scene| {
        let jail = scene.jail("one");
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        fs::write(elsewhere.join("disk"), "x").unwrap();
        let stage = |path: &std::path::Path, owner| {
            let source = Artifact::open(path).unwrap();
            persistent(&source, &jail.dir, &name("disk"), owner, &plain()).unwrap_err()
        };
        let error = stage(&elsewhere.join("disk"), Some(jail_user()));
        assert_eq!(
            (error.kind(), error.path()),
            (ErrorKind::CrossDevice, elsewhere.join("disk").as_path())
        );
        assert_eq!(owner_and_mode(&elsewhere.join("disk")).0, 0);
        let disk = scene.source("disk", "x");
        fs::set_permissions(disk.path(), Permissions::from_mode(0o4644)).unwrap();
        assert!(stage(disk.path(), Some(jail_user())).to_string().contains("set-id"));
        fs::set_permissions(disk.path(), Permissions::from_mode(0o644)).unwrap();
        chown(disk.path(), Some(7), Some(7)).unwrap();
        assert!(stage(disk.path(), Some(jail_user())).to_string().contains("uid 7"));
        assert_eq!(list(&jail.path), [""; 0]);
        // Without the explicit request nothing changes owner.
        let source = Artifact::open(disk.path()).unwrap();
        persistent(&source, &jail.dir, &name("disk"), None, &plain()).unwrap();
        assert_eq!(owner_and_mode(disk.path()), (7, 7, 0o644));
    });
}

//! Each failure has a name and leaves nothing: each call of a launcher once, a full quota, a disk that cannot be read.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::process::Command;

use jail_fs::{
    Access, Artifact, Error, ErrorKind, Owner, StagedTree, block_device, ensure_char_device,
    private, read_only, remove_tree, write,
};
use nix::mount::{MsFlags, mount};
use testkit::{FsKind, Tmpfs};

use crate::support::{
    Fault, Scene, has_strace, jail_user, list, loop_device, name, on, plain, unmount,
};

const MIB: u64 = 1 << 20;

/// Stages and publishes a whole jail.
fn launch(scene: &Scene, device: &Path) -> jail_fs::Result<()> {
    let image = |file: &str| Artifact::open(&scene.root().join("images").join(file));
    let (kernel, disk, device) = (image("kernel")?, image("disk")?, Artifact::open(device)?);
    let tree = StagedTree::create(&scene.base, &name("one"))?;
    let root = tree.make_dir("root", jail_user(), 0o700)?;
    let dev = tree.make_dir("root/dev", jail_user(), 0o711)?;
    read_only(&kernel, &root, &name("kernel"), jail_user(), &plain())?;
    private(&disk, &root, &name("disk"), jail_user(), &plain())?;
    // Into a directory that anybody may be at work in, too.
    private(&disk, &*root, &name("other"), jail_user(), &plain())?;
    block_device(&device, &root, &name("sdb"), jail_user(), Access::ReadWrite)?;
    ensure_char_device(&dev, &name("null"), 1, 3, jail_user(), 0o666)?;
    write(tree.top(), &name("jail.json"), b"{}", Owner::ROOT, 0o600)?;
    tree.publish().map(drop)
}

/// Each call of a launch fails once: the error tells of which file, the host is as it was, and a retry succeeds.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn each_failing_call_leaves_nothing() {
    let test = "each_failing_call_leaves_nothing";
    if !has_strace(test) {
        return;
    }
    on(test, FsKind::Ext4, |scene| {
        scene.source("kernel", "kernel");
        scene.source("disk", vec![5; 100_000]);
        let backing = scene.source("backing", vec![0; 1 << 20]);
        let device = loop_device(backing.path());
        let images = scene.root().join("images");
        // At least so often. The table of mounts is opened again only after another test has mounted something: that is
        // an openat and an openat2 more.
        for (call, errno, least) in [
            ("getrandom", "ENOSYS", 1),
            ("mkdirat", "ENOSPC", 3),
            ("openat2", "EMFILE", 8),
            ("openat", "EMFILE", 2),
            ("statx", "EIO", 15),
            ("flock", "ENOLCK", 1),
            ("fchown", "EDQUOT", 4),
            ("fchownat", "EIO", 2),
            ("ioctl", "EIO", 2),
            ("ftruncate", "EIO", 2),
            ("lseek", "EIO", 4),
            ("copy_file_range", "ENOSPC", 2),
            ("write", "ENOSPC", 1),
            ("mknodat", "EPERM", 2),
            ("linkat", "EIO", 2),
            ("fchmodat", "EIO", 1),
            ("fchmod", "EIO", 1),
            ("renameat2", "EIO", 1),
        ] {
            let (mut failed, mut went_well) = (0, 0);
            for when in 1.. {
                let result = {
                    let _fault = Fault::inject(&format!("{call}:error={errno}:when={when}"));
                    launch(scene, device.path())
                };
                match result {
                    Err(error) => {
                        tells(&error, &[scene.base.path(), &images, device.path()]);
                        assert_eq!(scene.entries(), [""; 0], "{call} {when}: left by {error}");
                        failed += 1;
                        went_well = 0;
                    }
                    // The fault may have fallen on a call of the test's own, and then on none at all.
                    Ok(()) => {
                        remove_tree(&scene.base, &name("one"), None).unwrap();
                        went_well += 1;
                    }
                }
                if went_well == 3 {
                    break;
                }
            }
            println!("{call}: failed {failed} times");
            assert!(failed >= least, "{call} failed {failed} times only");
        }
        launch(scene, device.path()).unwrap();
    });
}

/// A signal in between, and a kernel that copies nothing and says so with 0, are no failures.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn an_interrupted_copy_goes_on() {
    let test = "an_interrupted_copy_goes_on";
    if !has_strace(test) {
        return;
    }
    on(test, FsKind::Ext4, |scene| {
        let jail = scene.jail("one");
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        fs::write(elsewhere.join("disk"), vec![1; 3 << 20]).unwrap();
        let here = scene.source("disk", vec![1; 3 << 20]);
        let there = Artifact::open(&elsewhere.join("disk")).unwrap();
        for (source, fault) in [
            (&here, "copy_file_range:error=EINTR:when=1"),
            (&here, "copy_file_range:retval=0:when=1"),
            (&there, "pread64:error=EINTR:when=1"),
            (&there, "pwrite64:error=EINTR:when=2"),
            (&there, "fallocate:error=EINTR:when=1"),
        ] {
            let staged = {
                let _fault = Fault::inject(fault);
                private(source, &jail.dir, &name("disk"), jail_user(), &plain())
            };
            assert_eq!(staged.expect(fault).bytes_copied, 3 * MIB, "{fault}");
            assert_eq!(fs::read(jail.path.join("disk")).unwrap(), vec![1; 3 << 20], "{fault}");
            fs::remove_file(jail.path.join("disk")).unwrap();
        }
    });
}

/// Operation, path and cause.
fn tells(error: &Error, places: &[&Path]) {
    assert!(!error.operation().is_empty());
    assert!(places.iter().any(|place| error.path().starts_with(place)), "{error:?}");
    assert!(std::error::Error::source(error).is_some(), "{error:?}");
    assert!(!error.path().to_string_lossy().contains("(deleted)"), "{error:?}");
}

/// A real quota, of a btrfs subvolume.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn full_quota_reports_progress() {
    on("full_quota_reports_progress", FsKind::Btrfs, |scene| {
        let elsewhere = scene.dir("elsewhere");
        let _tmpfs = Tmpfs::mount(&elsewhere, "mode=0755");
        fs::write(elsewhere.join("disk"), vec![1; 40 << 20]).unwrap();
        let limited = scene.root().join("limited");
        let btrfs = |arguments: &[&str], path: &Path| {
            let done = Command::new("btrfs").args(arguments).arg(path).output().unwrap();
            assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        };
        btrfs(&["quota", "enable"], &scene.root());
        btrfs(&["subvolume", "create"], &limited);
        btrfs(&["qgroup", "limit", "16M"], &limited);
        let dir = jail_fs::TrustedDir::open(&limited).unwrap();
        let source = Artifact::open(&elsewhere.join("disk")).unwrap();
        let error = private(&source, dir.dir(), &name("disk"), jail_user(), &plain()).unwrap_err();
        let place = limited.join("disk");
        assert_eq!((error.kind(), error.path()), (ErrorKind::NoSpace, place.as_path()));
        assert!(error.hint().unwrap().contains("quota"), "{error:?}");
        let copied = copied(&error, 40 * MIB);
        assert!((8 * MIB..=16 * MIB).contains(&copied), "{error}");
        assert_eq!(list(&limited), [""; 0]);
    });
}

/// A real disk with an unreadable end.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn unreadable_source_reports_progress() {
    let test = "unreadable_source_reports_progress";
    on(test, FsKind::Ext4, |scene| {
        let image = scene.dir("images").join("bad");
        let bad = File::create(&image).unwrap();
        bad.set_len(64 * MIB).unwrap();
        let device = loop_device(&image);
        let made = Command::new("mkfs.ext4").args(["-q", "-F"]).arg(device.path()).output();
        assert!(made.unwrap().status.success());
        let at = scene.dir("elsewhere");
        let attach = || {
            mount(Some(device.path()), &at, Some("ext4"), MsFlags::empty(), None::<&str>).unwrap();
        };
        attach();
        let file = File::create(at.join("disk")).unwrap();
        file.write_all_at(&vec![1; 32 << 20], 0).unwrap();
        file.sync_all().unwrap();
        drop(file);
        unmount(&at);
        // The device is as large as before; what was in its second half is no more.
        bad.set_len(32 * MIB).unwrap();
        attach();
        let jail = scene.jail("one");
        let source = Artifact::open(&at.join("disk")).unwrap();
        let error = private(&source, &jail.dir, &name("disk"), jail_user(), &plain()).unwrap_err();
        assert_eq!((error.kind(), error.path()), (ErrorKind::Io, source.path()));
        let copied = copied(&error, 32 * MIB);
        assert!((MIB..32 * MIB).contains(&copied), "{error}");
        assert_eq!(list(&jail.path), [""; 0]);
        drop(source);
        unmount(&at);
    });
}

/// The bytes that the error says were copied, of so many.
fn copied(error: &Error, needed: u64) -> u64 {
    let text = error.to_string();
    assert!(text.contains(&format!("of about {needed} in a file of {needed}")), "{text}");
    text.split(' ').find_map(|word| word.parse().ok()).unwrap()
}

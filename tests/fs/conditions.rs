//! Inherited conditions: limits, umask, roots, filters, filesystems that refuse.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use jail_fs::{
    Artifact, ErrorKind, Lease, Owner, StagedTree, TrustedDir, ensure_char_device, persistent,
    private, read_only, remove_tree, sweep, write,
};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::stat::{Mode, umask};
use testkit::{FsKind, Tmpfs};

use crate::support::{
    Fault, Scene, as_jail_user, has_strace, jail_user, list, name, on, on_each_fs, owner_and_mode,
    plain,
};
use crate::sys::{Child, close_inherited};

fn as_root(body: impl FnOnce() -> bool) -> bool {
    Child::spawn(Owner::ROOT, body).succeeded()
}

/// SIGXFSZ would end the child.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn file_size_limit_is_named() {
    on_each_fs("file_size_limit_is_named", |scene| {
        let disk = scene.source("disk", vec![1; 3 << 20]);
        let jail = scene.jail("one");
        assert!(as_root(|| {
            setrlimit(Resource::RLIMIT_FSIZE, 1 << 20, 1 << 20).unwrap();
            let tree = StagedTree::create(&scene.base, &name("two")).unwrap();
            for error in [
                private(&disk, &jail.dir, &name("disk"), jail_user(), &plain()).map(drop),
                private(&disk, tree.top(), &name("disk"), jail_user(), &plain()).map(drop),
                write(&jail.dir, &name("file"), &[0; (1 << 20) + 1], jail_user(), 0o600).map(drop),
            ]
            .map(Result::unwrap_err)
            {
                assert_eq!(error.kind(), ErrorKind::Limit);
                let text = error.to_string();
                assert!(text.contains("RLIMIT_FSIZE allows 1048576"), "{text}");
            }
            // The image itself may be shared, whatever its size.
            read_only(&disk, &jail.dir, &name("shared"), jail_user(), &plain()).unwrap();
            write(&jail.dir, &name("small"), b"x", jail_user(), 0o600).is_ok()
        }));
        assert_eq!(list(&jail.path), ["shared", "small"]);
        assert_eq!(scene.entries(), ["one"]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn descriptor_limit_is_named() {
    on("descriptor_limit_is_named", FsKind::Ext4, |scene| {
        let jail = scene.jail("one");
        fs::create_dir_all(jail.path.join("deep/er")).unwrap();
        assert!(as_root(|| {
            // The limit is on the number of a descriptor, and other tests have some.
            close_inherited();
            let base = TrustedDir::open(scene.base.path()).unwrap();
            for limit in 4..16 {
                setrlimit(Resource::RLIMIT_NOFILE, limit, 4096).unwrap();
                match remove_tree(&base, &name("one"), None) {
                    Ok(_) => return limit > 4,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::Limit, "{error:?}");
                        assert!(error.hint().unwrap().contains("RLIMIT_NOFILE"));
                        assert!(
                            error.path().starts_with("/proc")
                                || error.path().starts_with(scene.base.path())
                        );
                        sweep(&base).ok();
                    }
                }
            }
            false
        }));
        sweep(&scene.base).unwrap();
    });
}

/// Without `CAP_DAC_OVERRIDE` a directory that the umask has closed cannot be opened.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_21_plain_user_any_umask() {
    on_each_fs("row_21_plain_user_any_umask", |scene| {
        let image = scene.source("image", "x");
        for mask in [0o777, 0o277, 0o077, 0] {
            let base = scene.dir(&format!("own-{mask:o}"));
            chown(&base, Some(jail_user().uid()), Some(jail_user().gid())).unwrap();
            assert!(as_jail_user(|| {
                umask(Mode::from_bits_truncate(mask));
                let parent = TrustedDir::create(&base.join("a/b")).unwrap();
                let parent = parent.create_child(&name("c")).unwrap();
                let tree = StagedTree::create(&parent, &name("one")).unwrap();
                let root = tree.make_dir("root", jail_user(), 0o750).unwrap();
                private(&image, &root, &name("disk"), jail_user(), &plain()).unwrap();
                private(&image, &*root, &name("other"), jail_user(), &plain()).unwrap();
                let published = tree.publish().unwrap();
                remove_tree(&parent, &name("one"), Some(published.dir.id())).unwrap().entries == 4
            }));
            assert_eq!(owner_and_mode(&base.join("a/b/c")).2, 0o755, "{mask:o}");
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn refuses_sources_of_false_size() {
    on_each_fs("refuses_sources_of_false_size", |scene| {
        let jail = scene.jail("one");
        for path in ["/proc/version", "/sys/kernel/uevent_seqnum", "/proc/self/mountinfo"] {
            let source = Artifact::open(Path::new(path)).unwrap();
            for staged in [
                read_only(&source, &jail.dir, &name("file"), jail_user(), &plain()),
                private(&source, &jail.dir, &name("file"), jail_user(), &plain()),
            ] {
                let error = staged.unwrap_err();
                assert_eq!(error.path(), Path::new(path));
                assert!(
                    matches!(error.kind(), ErrorKind::Untrusted | ErrorKind::SourceChanged),
                    "{error:?}"
                );
            }
        }
        assert_eq!(list(&jail.path), [""; 0]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn chroot_without_mount_point_works() {
    on_each_fs("chroot_without_mount_point_works", |scene| {
        let root = scene.dir("chroot");
        fs::create_dir(root.join("proc")).unwrap();
        fs::write(root.join("image"), "x").unwrap();
        let life = || {
            let base = TrustedDir::create(Path::new("/base")).unwrap();
            assert!(!base.mount_flags().unwrap().read_only);
            base.verify_path().unwrap();
            let image = Artifact::open(Path::new("/image")).unwrap();
            let tree = StagedTree::create(&base, &name("one")).unwrap();
            let dir = tree.make_dir("root", jail_user(), 0o700).unwrap();
            private(&image, &dir, &name("disk"), jail_user(), &plain()).unwrap();
            let old = tree.publish().unwrap().dir.id();
            let again = StagedTree::create(&base, &name("one")).unwrap();
            let new = again.exchange(old)?;
            new.replaced.unwrap()?;
            remove_tree(&base, &name("one"), None)
        };
        // Without /proc nothing shows whether something is mounted.
        assert!(as_root(|| {
            nix::unistd::chroot(&root).unwrap();
            let error = life().unwrap_err();
            error.path() == Path::new("/proc/thread-self/mountinfo")
                && error.hint().is_some_and(|hint| hint.contains("/proc"))
        }));
        fs::remove_dir_all(root.join("base")).unwrap();
        let proc = root.join("proc");
        mount(Some("/proc"), &proc, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
        let served = as_root(|| {
            nix::unistd::chroot(&root).unwrap();
            life().unwrap().entries == 1
        });
        nix::mount::umount2(&proc, nix::mount::MntFlags::MNT_DETACH).unwrap();
        assert!(served);
        assert_eq!(list(&root.join("base")), [""; 0]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn a_refused_openat2_is_named() {
    let test = "a_refused_openat2_is_named";
    if !has_strace(test) {
        return;
    }
    on(test, FsKind::Ext4, |scene| {
        let jail = scene.jail("one");
        let image = scene.source("image", "x");
        for errno in ["ENOSYS", "EPERM"] {
            let errors = {
                let _fault = Fault::inject(&format!("openat2:error={errno}"));
                [
                    scene.base.child(&name("one")).map(drop),
                    StagedTree::create(&scene.base, &name("two")).map(drop),
                    private(&image, &jail.dir, &name("disk"), jail_user(), &plain()).map(drop),
                    jail_fs::open_file(&jail.dir, "file").map(drop),
                    ensure_char_device(&jail.dir, &name("kvm"), 10, 232, jail_user(), 0o600)
                        .map(drop),
                    remove_tree(&scene.base, &name("one"), None).map(drop),
                    sweep(&scene.base).map(drop),
                ]
            };
            for error in errors.map(Result::unwrap_err) {
                assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
                assert!(error.to_string().contains("openat2(2) is refused"), "{error}");
                assert!(error.hint().unwrap().contains("seccomp"), "{error:?}");
            }
        }
        assert_eq!(scene.entries(), ["one"]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_54_failed_cleanup_reported() {
    let test = "row_54_failed_cleanup_reported";
    if !has_strace(test) {
        return;
    }
    on(test, FsKind::Ext4, |scene| {
        let disk = scene.source("disk", vec![1; 20 << 20]);
        let full = scene.dir("full");
        let _tmpfs = Tmpfs::mount(&full, "mode=0755,size=8m");
        let base = TrustedDir::open(&full).unwrap();
        let tree = StagedTree::create(&base, &name("one")).unwrap();
        let error = {
            let _fault = Fault::inject("unlinkat:error=EROFS:when=1");
            private(&disk, tree.top(), &name("disk"), jail_user(), &plain()).unwrap_err()
        };
        let place = tree.path().join("disk");
        assert_eq!((error.kind(), error.path()), (ErrorKind::NoSpace, place.as_path()));
        let [left] = error.left_behind() else { panic!("{error:?}") };
        assert_eq!(left.path(), place);
        assert!(error.to_string().contains("Read-only file system"), "{error}");
        assert_eq!(list(tree.path()), ["disk"]);
        tree.discard().unwrap();
        // A taken name, and a tree that cannot be removed.
        let _taken = base.create_child(&name("one")).unwrap();
        let tree = StagedTree::create(&base, &name("one")).unwrap();
        let staging = tree.path().to_owned();
        let error = {
            let _fault = Fault::inject("unlinkat:error=EROFS:when=1");
            tree.publish().unwrap_err()
        };
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        assert_eq!(error.left_behind().first().map(jail_fs::Error::path), Some(staging.as_path()));
        assert_eq!(sweep(&base).unwrap().removed, [staging]);
    });
}

fn chattr(flag: &str, path: &Path) {
    assert!(Command::new("chattr").arg(flag).arg(path).status().unwrap().success());
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_54_sweep_reports_failures() {
    on_each_fs("row_54_sweep_reports_failures", |scene| {
        let base = scene.base.path();
        for tree in [".trash-a-1", ".staging-b-2", ".trash-c-3"] {
            fs::create_dir_all(base.join(tree).join("root/deep")).unwrap();
            fs::write(base.join(tree).join("root/deep/file"), "x").unwrap();
        }
        symlink("/etc", base.join(".trash-link-4")).unwrap();
        fs::write(base.join(".staging-file-5"), "x").unwrap();
        let held = base.join(".trash-a-1/root/deep/file");
        chattr("+i", &held);
        let report = sweep(&scene.base).unwrap();
        let mut removed = report.removed.clone();
        removed.sort();
        assert_eq!(removed, [base.join(".staging-b-2"), base.join(".trash-c-3")]);
        let mut failed: Vec<_> = report
            .failed
            .iter()
            .map(|failure| (failure.path.clone(), failure.error.kind()))
            .collect();
        failed.sort_by(|a, b| a.0.cmp(&b.0));
        assert_eq!(
            failed,
            [
                (base.join(".staging-file-5"), ErrorKind::Untrusted),
                (base.join(".trash-a-1"), ErrorKind::Privilege),
                (base.join(".trash-link-4"), ErrorKind::Untrusted),
            ]
        );
        let immutable =
            report.failed.iter().find(|failure| failure.path.ends_with(".trash-a-1")).unwrap();
        assert!(immutable.error.path().ends_with("file"), "{:?}", immutable.error);
        assert!(immutable.error.to_string().contains("immutable"));
        chattr("-i", immutable.error.path());
        assert_eq!(sweep(&scene.base).unwrap().failed.len(), 2);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_54_failed_replacement_reported() {
    on_each_fs("row_54_failed_replacement_reported", |scene| {
        let tree = StagedTree::create(&scene.base, &name("one")).unwrap();
        let root = tree.make_dir("root", jail_user(), 0o700).unwrap();
        write(&root, &name("file"), b"x", jail_user(), 0o600).unwrap();
        let old = tree.publish().unwrap();
        chattr("+i", &old.dir.path().join("root/file"));
        let new = StagedTree::create(&scene.base, &name("one")).unwrap().exchange(old.dir.id());
        let error = new.unwrap().replaced.unwrap().unwrap_err();
        assert!(error.to_string().contains("immutable"), "{error}");
        chattr("-i", error.path());
        drop(old);
        assert_eq!(sweep(&scene.base).unwrap().removed.len(), 1);
        assert_eq!(scene.entries(), ["one"]);
    });
}

/// Remounts the filesystem. A child that another test forks has files open for writing (EBUSY) until an exec.
fn remount(scene: &Scene, flags: MsFlags) {
    let root = scene.root();
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let flags = MsFlags::MS_REMOUNT | flags;
        match mount(None::<&str>, &root, None::<&str>, flags, None::<&str>) {
            Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::yield_now(),
            done => return done.unwrap(),
        }
    }
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_54_read_only_filesystem() {
    on_each_fs("row_54_read_only_filesystem", |scene| {
        let jail = scene.jail("one");
        fs::create_dir_all(scene.base.path().join(".trash-a-1/root")).unwrap();
        remount(scene, MsFlags::MS_RDONLY);
        let errors = [
            remove_tree(&scene.base, &name("one"), None).map(drop),
            StagedTree::create(&scene.base, &name("two")).map(drop),
            write(&jail.dir, &name("file"), b"x", jail_user(), 0o600).map(drop),
            TrustedDir::create(&scene.root().join("new")).map(drop),
        ];
        let swept = sweep(&scene.base).unwrap();
        remount(scene, MsFlags::empty());
        for error in errors.map(Result::unwrap_err) {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert!(error.path().starts_with(scene.root()), "{error:?}");
            assert!(error.hint().unwrap().contains("read-only"), "{error:?}");
        }
        assert_eq!(swept.failed.len(), 1);
        assert_eq!(scene.entries(), [".trash-a-1", "one"]);
        sweep(&scene.base).unwrap();
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn foreign_mounts_block_one_tree() {
    on_each_fs("foreign_mounts_block_one_tree", |scene| {
        for id in ["one", "two"] {
            let tree = StagedTree::create(&scene.base, &name(id)).unwrap();
            tree.make_dir("root", jail_user(), 0o700).unwrap();
            tree.publish().unwrap();
        }
        fs::create_dir(scene.base.path().join("foreign")).unwrap();
        fs::create_dir_all(scene.base.path().join(".trash-a-1/root")).unwrap();
        let _inside = Tmpfs::mount(&scene.base.path().join("two/root"), "mode=0755");
        let _beside = Tmpfs::mount(&scene.base.path().join("foreign"), "mode=0755");
        let old = scene.base.child(&name("one")).unwrap();
        Lease::try_acquire(&old).unwrap();
        let new = StagedTree::create(&scene.base, &name("one")).unwrap();
        new.exchange(old.id()).unwrap().replaced.unwrap().unwrap();
        remove_tree(&scene.base, &name("one"), None).unwrap();
        let report = sweep(&scene.base).unwrap();
        assert_eq!((report.removed.len(), report.failed.len()), (1, 0));
        for id in ["two", "foreign"] {
            let error = remove_tree(&scene.base, &name(id), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Mounted, "{id}");
        }
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_58_writable_directory_named() {
    on_each_fs("row_58_writable_directory_named", |scene| {
        let dir = scene.base.create_child(&name("firecracker")).unwrap();
        for mode in [0o775, 0o757, 0o1777] {
            fs::set_permissions(dir.path(), Permissions::from_mode(mode)).unwrap();
            for refused in [
                scene.base.child(&name("firecracker")).map(drop),
                scene.base.create_child(&name("firecracker")).map(drop),
                Lease::try_acquire(&dir).map(drop),
                dir.entries().map(drop),
                sweep(&dir).map(drop),
                dir.verify_path(),
            ] {
                let error = refused.unwrap_err();
                assert_eq!((error.kind(), error.path()), (ErrorKind::Untrusted, dir.path()));
                assert!(error.to_string().contains(&format!("mode {mode:04o}")), "{error}");
            }
        }
    });
}

/// Root of a user namespace in which only uid and gid 0 have a mapping.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn unmapped_owners_are_named() {
    on_each_fs("unmapped_owners_are_named", |scene| {
        let image = scene.source("image", "x").path().to_owned();
        let foreign = scene.source("foreign", "x").path().to_owned();
        chown(&foreign, Some(jail_user().uid()), Some(jail_user().gid())).unwrap();
        let host = scene.dir("host-of-another");
        chown(&host, Some(jail_user().uid()), Some(jail_user().gid())).unwrap();
        assert!(as_root(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWUSER).unwrap();
            fs::write("/proc/self/setgroups", "deny").unwrap();
            fs::write("/proc/self/uid_map", "0 0 1").unwrap();
            fs::write("/proc/self/gid_map", "0 0 1").unwrap();
            let base = TrustedDir::open(scene.base.path()).unwrap();
            let tree = StagedTree::create(&base, &name("one")).unwrap();
            let image = Artifact::open(&image).unwrap();
            let error =
                private(&image, tree.top(), &name("disk"), jail_user(), &plain()).unwrap_err();
            assert!(error.to_string().contains("has no mapping in this user namespace"), "{error}");
            assert_eq!(list(tree.path()), [""; 0]);
            let foreign = Artifact::open(&foreign).unwrap();
            let shared =
                read_only(&foreign, tree.top(), &name("disk"), Owner::ROOT, &plain()).unwrap();
            assert_eq!(shared.fallback, Some(jail_fs::Fallback::NotRoots));
            let lent = persistent(&foreign, tree.dir(), &name("lent"), Some(Owner::ROOT), &plain());
            assert_eq!(lent.unwrap_err().kind(), ErrorKind::Untrusted);
            let error = TrustedDir::open(&host).unwrap_err();
            assert!(error.hint().unwrap().contains("user namespace"), "{error:?}");
            tree.discard().is_ok()
        }));
        assert_eq!(scene.entries(), [""; 0]);
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn odd_paths_are_named() {
    on("odd_paths_are_named", FsKind::Ext4, |scene| {
        use std::os::unix::ffi::OsStrExt as _;
        let odd = scene.root().join(std::ffi::OsStr::from_bytes(b"\xff\x1b[2J"));
        let error = Artifact::open(&odd).unwrap_err();
        assert!(error.to_string().ends_with("/\\xff\\x1b[2J"), "{error}");
        assert_eq!(error.path(), odd);
        File::create(&odd).unwrap();
        Artifact::open(&odd).unwrap();
        let long = scene.root().join("n".repeat(300));
        let error = Artifact::open(&long).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.hint().unwrap().contains("255 bytes"));
        symlink("loop", scene.root().join("loop")).unwrap();
        let error = Artifact::open(&scene.root().join("loop/image")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Untrusted);
        assert!(error.hint().unwrap().contains("symbolic link"));
        let error = TrustedDir::create(&scene.root().join("loop/base")).unwrap_err();
        assert!(error.to_string().contains("a link to loop"), "{error}");
    });
}

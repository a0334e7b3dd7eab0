//! Rows 26, 27, 30, 31: taking a tree down takes down nothing else. The races of it are in `races.rs`.

use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use jail_fs::{ErrorKind, StagedTree, remove_tree, sweep};
use nix::mount::{MsFlags, mount};
use rustix::fs::{IFlags, ioctl_getflags, ioctl_setflags};
use testkit::{FsKind, Tmpfs, mounts};

use crate::support::{Scene, as_jail_user, jail_user, list, name, on, on_each_fs, unmount};
use crate::sys::Child;

fn bind(from: &Path, to: &Path) {
    mount(Some(from), to, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
}

/// std, cap-std and pathrs removal delete the host's files behind a mount.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_26_mounts_are_refused_first() {
    on_each_fs("row_26_mounts_are_refused_first", |scene| {
        let jail = scene.jail("one");
        for dir in ["bind", "deep/er/tmpfs", "with space\\"] {
            fs::create_dir_all(jail.path.join(dir)).unwrap();
        }
        fs::write(jail.path.join("file"), "mount point").unwrap();
        fs::write(jail.path.join("first"), "an ordinary file").unwrap();
        // Of the same filesystem: the device number is the same on both sides.
        bind(&scene.host(), &jail.path.join("bind"));
        bind(&scene.host().join("secret"), &jail.path.join("file"));
        bind(&scene.host().join("dir"), &jail.path.join("with space\\"));
        let _tmpfs = Tmpfs::mount(&jail.path.join("deep/er/tmpfs"), "mode=0755");
        let error = remove_tree(&scene.base, &name("one"), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Mounted);
        let mut listed = error.mounts().to_vec();
        listed.sort();
        let expected =
            ["bind", "deep/er/tmpfs", "file", "with space\\"].map(|mount| jail.path.join(mount));
        assert_eq!(listed, expected);
        assert!(expected.iter().all(|mount| {
            let escaped = mount.to_str().unwrap().replace('\\', "\\\\");
            error.to_string().contains(&escaped)
        }));
        assert!(error.hint().is_some_and(|hint| hint.contains("Unmount")));
        assert_eq!(
            list(&jail.path),
            ["bind", "deep", "file", "first", "with space\\"],
            "nothing went"
        );
        assert_eq!(scene.entries(), ["one"]);
        // The same for a restart, which leaves the old tree as it was.
        let tree = StagedTree::create(&scene.base, &name("one")).unwrap();
        assert_eq!(tree.exchange(jail.top.id()).unwrap_err().kind(), ErrorKind::Mounted);
        assert_eq!(scene.entries(), ["one"]);
        for mount in [&expected[0], &expected[2], &expected[3]] {
            unmount(mount);
        }
        assert_eq!(
            remove_tree(&scene.base, &name("one"), None).unwrap_err().mounts(),
            [expected[1].clone()]
        );
        unmount(&expected[1]);
        // top, root, bind, deep, er, tmpfs, file, first, "with space\"
        assert_eq!(remove_tree(&scene.base, &name("one"), None).unwrap().entries, 9);
        assert_eq!(scene.entries(), [""; 0]);
    });
}

/// A tree that is a mount point, and a tree with mounts that show only elsewhere.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_26_hidden_mounts() {
    on_each_fs("row_26_hidden_mounts", |scene| {
        let jail = scene.jail("one");
        bind(&scene.host(), jail.top.path());
        let error = remove_tree(&scene.base, &name("one"), None).unwrap_err();
        assert_eq!(
            (error.kind(), error.mounts()),
            (ErrorKind::Mounted, &[jail.top.path().to_owned()][..])
        );
        unmount(jail.top.path());
        // The base, mounted a second time, and a mount in the tree there: the kernel would refuse half-way.
        fs::create_dir(jail.path.join("data")).unwrap();
        let alias = scene.dir("alias");
        bind(scene.base.path(), &alias);
        let inside = alias.join("one/root/data");
        {
            let _tmpfs = Tmpfs::mount(&inside, "mode=0755");
            assert_eq!(mounts::below(scene.base.path()), [""; 0].map(std::path::PathBuf::from));
            let error = remove_tree(&scene.base, &name("one"), None).unwrap_err();
            assert_eq!((error.kind(), error.mounts()), (ErrorKind::Mounted, &[inside][..]));
            assert_eq!(list(&jail.path), ["data"]);
        }
        unmount(&alias);
        assert_eq!(remove_tree(&scene.base, &name("one"), None).unwrap().entries, 3);
    });
}

/// Links and link targets; trees another one has put in the place of this one.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_30_links_are_removed() {
    on_each_fs("row_30_links_are_removed", |scene| {
        let jail = scene.jail("one");
        let (root, host) = (jail.path.clone(), scene.host());
        assert!(as_jail_user(|| {
            symlink(host.join("dir"), root.join("dir")).unwrap();
            symlink(host.join("secret"), root.join("file")).unwrap();
            symlink("..", root.join("up")).unwrap();
            fs::create_dir(root.join("deep")).unwrap();
            symlink(&host, root.join("deep/host")).is_ok()
        }));
        assert_eq!(remove_tree(&scene.base, &name("one"), None).unwrap().entries, 7);
        // The tree itself a link.
        symlink(scene.host(), scene.base.path().join("two")).unwrap();
        assert_eq!(
            remove_tree(&scene.base, &name("two"), None).unwrap_err().kind(),
            ErrorKind::Untrusted
        );
    });
}

#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_31_another_jail_stays() {
    on_each_fs("row_31_another_jail_stays", |scene| {
        let first = scene.jail("one").top.id();
        // Recorded, then torn down by someone else and made anew.
        fs::rename(scene.base.path().join("one"), scene.base.path().join("away")).unwrap();
        let second = scene.jail("one");
        let error = remove_tree(&scene.base, &name("one"), Some(first)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Replaced);
        assert!(error.to_string().contains(&second.top.id().to_string()), "{error}");
        assert_eq!(list(second.top.path()), ["root"]);
        remove_tree(&scene.base, &name("one"), Some(second.top.id())).unwrap();
        remove_tree(&scene.base, &name("away"), Some(first)).unwrap();
        assert_eq!(
            remove_tree(&scene.base, &name("one"), Some(first)).unwrap().entries,
            0,
            "none is fine"
        );
        assert_eq!(scene.entries(), [""; 0]);
    });
}

/// Refused with a reason; what is left is aside, and goes when the reason does.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn immutable_files_are_named() {
    on_each_fs("immutable_files_are_named", |scene| {
        for (what, flag) in
            [("file", IFlags::IMMUTABLE), ("dir", IFlags::IMMUTABLE), ("file", IFlags::APPEND)]
        {
            let jail = scene.jail("one");
            fs::create_dir(jail.path.join("dir")).unwrap();
            fs::write(jail.path.join("dir/below"), "").unwrap();
            fs::write(jail.path.join("file"), "").unwrap();
            let held = fs::File::open(jail.path.join(what)).unwrap();
            let flags = ioctl_getflags(&held).unwrap();
            ioctl_setflags(&held, flags | flag).unwrap();
            let error = remove_tree(&scene.base, &name("one"), None).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Privilege, "{error:?}");
            assert!(
                error.to_string().contains("immutable") && error.hint().unwrap().contains("chattr"),
                "{error:?}"
            );
            // The name is free, the rest is aside and listed.
            let aside = scene.entries();
            assert!(aside.len() == 1 && aside[0].starts_with(".trash-one-"), "{aside:?}");
            let report = sweep(&scene.base).unwrap();
            assert_eq!((report.removed.len(), report.failed.len()), (0, 1));
            ioctl_setflags(&held, flags).unwrap();
            assert_eq!(sweep(&scene.base).unwrap().removed.len(), 1);
            assert_eq!(scene.entries(), [""; 0]);
        }
    });
}

/// Directories cannot be lifted out of a subvolume.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_27_nested_subvolumes() {
    let test = "row_27_nested_subvolumes";
    on(test, FsKind::Btrfs, |scene| {
        let jail = scene.jail("one");
        let mut dir = jail.path.clone();
        let mut entries = 2;
        for level in 0..12 {
            dir.push(format!("volume-{level}"));
            subvolume(&dir);
            fs::create_dir_all(dir.join("a/b/c")).unwrap();
            fs::write(dir.join("a/b/file"), "x").unwrap();
            dir.push("a/b/c");
            entries += 5;
        }
        assert_eq!(remove_tree(&scene.base, &name("one"), None).unwrap().entries, entries);
        assert_eq!(scene.entries(), [""; 0]);
    });
}

fn subvolume(path: &Path) {
    let made = std::process::Command::new("btrfs")
        .args(["-q", "subvolume", "create"])
        .arg(path)
        .output()
        .unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

/// A directory with another project may not be moved below an inherited project.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn row_27_project_quotas() {
    let test = "row_27_project_quotas";
    on(test, FsKind::Xfs, |scene| {
        let jail = scene.jail("one");
        fs::create_dir_all(jail.path.join("a/b/c/d")).unwrap();
        let set = |project: &str, path: &Path| {
            let set = std::process::Command::new("xfs_io")
                .args(["-c", &format!("chproj {project}"), "-c", "chattr +P"])
                .arg(path)
                .output()
                .unwrap();
            assert!(set.status.success(), "{}", String::from_utf8_lossy(&set.stderr));
        };
        set("7", jail.top.path());
        for (project, path) in [("8", "a"), ("9", "a/b"), ("10", "a/b/c"), ("11", "a/b/c/d")] {
            set(project, &jail.path.join(path));
        }
        assert_eq!(remove_tree(&scene.base, &name("one"), None).unwrap().entries, 6);
    });
}

/// Directories with modes that the jail's user chose.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn closed_directories_are_removed() {
    on_each_fs("closed_directories_are_removed", |scene| {
        use std::os::unix::ffi::OsStrExt as _;
        use std::os::unix::fs::PermissionsExt as _;
        let jail = scene.jail("one");
        let root = jail.path.clone();
        let made = |scene: &Scene| {
            let mut made = 0;
            for round in 0..400_usize {
                let length = [1, 8, 64, 255][round % 4];
                // Every byte but NUL and '/', in some order.
                let bytes: Vec<u8> = (0..length)
                    .map(|at| u8::try_from((round * 31 + at * 7 + 1) % 254 + 1).unwrap())
                    .map(|byte| if byte == b'/' { 255 } else { byte })
                    .collect();
                let path = root.join(std::ffi::OsStr::from_bytes(&bytes));
                made += u64::from(match round % 3 {
                    0 => fs::write(&path, "").is_ok(),
                    1 => symlink(scene.host(), &path).is_ok(),
                    _ => {
                        fs::create_dir(&path).is_ok() && {
                            fs::write(path.join("x"), "").unwrap();
                            fs::set_permissions(&path, fs::Permissions::from_mode(0o000)).is_ok()
                        }
                    }
                });
            }
            made
        };
        let made = made(scene);
        assert!(made > 300, "{made}");
        chown(&jail.path, Some(jail_user().uid()), None).unwrap();
        let entries = remove_tree(&scene.base, &name("one"), None).unwrap().entries;
        assert!(entries > made, "{entries} of {made}");
        assert_eq!(scene.entries(), [""; 0]);
    });
}

/// A process that is forked during a look at the table of mounts has a lock that nobody releases.
#[test]
#[ignore = "needs root: cargo xtask test-root"]
fn forks_during_removal_work() {
    on("forks_during_removal_work", FsKind::Ext4, |scene| {
        let cycle = |id: &str| {
            fs::create_dir(scene.base.path().join(id)).unwrap();
            remove_tree(&scene.base, &name(id), None).unwrap();
        };
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    cycle("thread");
                }
            });
            for _ in 0..500 {
                let forked = Child::spawn(jail_fs::Owner::ROOT, || {
                    cycle("forked");
                    true
                });
                assert!(forked.succeeded());
            }
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(scene.entries(), [""; 0]);
    });
}
